/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: MemoryRegionCache.  Part of exec/memory.h.
 */

/* Called at the end of address_space_cache_init() */
static inline void guard_cache_init(MemoryRegionCache *cache,
                                    const AddressSpace *as)
{
    cache->guard_seen = 0;
    cache->guard_who = guard_for ?: as;
}

/* Whether no byte of a range of cached RAM is blocked, by the table */
bool guard_cache_clear(const MemoryRegionCache *cache, hwaddr addr,
                       hwaddr len, bool is_write);

/*
 * What MemoryRegionCache.guard_seen holds while no byte of the cache is
 * protected by the table that is in force, or one published since
 */
static inline uint64_t guard_seen_clear(uint64_t generation)
{
    return generation * 2 + 1;
}

/**
 * guard_cache_direct: whether a cache's pointer may be used for an access
 * @cache: the cache
 * @addr: offset in it
 * @len: bytes, at least 1
 * @is_write: direction
 *
 * Called in an RCU critical section.  The cache keeps its pointer while
 * memory is protected; each access asks instead, so that there is no moment
 * at which an old cache is in use.  It asks the table once for the whole
 * cache, and for each access if some of it is protected.
 */
static inline bool guard_cache_direct(const MemoryRegionCache *cache,
                                      hwaddr addr, hwaddr len, bool is_write)
{
    return likely(cache->ptr) &&
           (!guard_active() ||
            qatomic_read_u64(&cache->guard_seen) ==
            guard_seen_clear(qatomic_read_u64(&guard_generation)) ||
            guard_cache_clear(cache, addr, len, is_write));
}
