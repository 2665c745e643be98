/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: devices by name, and those that can't be filtered.
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "block/aio.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "hw/pci/pci_device.h"
#include "hw/qdev-core.h"
#include "hw/virtio/vhost.h"
#include "hw/virtio/virtio.h"
#include "system/iothread.h"
#include "guard/devices.h"
#include "guard/guard.h"
#include "guard/iothread.h"
#include "guard/physmem.h"

__thread const void *guard_who;
__thread const void *guard_for;

const void *guard_noted(void)
{
    return GUARD_MUTANT(GUARD_HOOK_WHO) ? NULL : guard_who;
}

/*
 * QOM paths by AddressSpace of a PCI device or by VirtIODevice: an event is
 * sent from any thread, where QOM can't be asked.
 */
static QemuMutex guard_paths_lock;
static GHashTable *guard_paths;

/* Devices that reach guest memory past QEMU; the BQL protects it */
static GPtrArray *guard_foreign;

typedef struct GuardForeign {
    const char *type;
    const char *why;            /* follows the device's name */
} GuardForeign;

/*
 * What QEMU can't look into, but the guest can direct to any address.
 * vhost in all its forms comes by guard_vhost_begin().
 */
static const GuardForeign guard_foreign_types[] = {
    { "vfio-pci", "is assigned hardware, which reaches guest memory by itself"
                  ": unplug it first" },
    { "x-pci-proxy-dev", "is emulated by another process, which has guest "
                         "memory mapped: unplug it first" },
    { "virtio-gpu-gl-device", "gives guest memory to a rendering library: "
                              "use virtio-gpu without GL" },
    { "virtio-gpu-rutabaga-device", "gives guest memory to a rendering "
                                    "library: use virtio-gpu" },
};

static const GuardForeign *guard_foreign_type(const char *type)
{
    ObjectClass *oc = object_class_by_name(type);
    size_t i;

    for (i = 0; oc && i < ARRAY_SIZE(guard_foreign_types); i++) {
        if (object_class_dynamic_cast(oc, guard_foreign_types[i].type)) {
            return &guard_foreign_types[i];
        }
    }
    return NULL;
}

/* The key of a device in guard_paths, or NULL if it has none */
static const void *guard_device_key(DeviceState *dev)
{
    PCIDevice *pci = (PCIDevice *)object_dynamic_cast(OBJECT(dev),
                                                      TYPE_PCI_DEVICE);

    if (pci) {
        return pci_get_address_space(pci);
    }
    return object_dynamic_cast(OBJECT(dev), TYPE_VIRTIO_DEVICE);
}

static void guard_device_realize(DeviceListener *listener, DeviceState *dev)
{
    const void *key = guard_device_key(dev);
    const char *type = object_get_typename(OBJECT(dev));

    if (key) {
        QEMU_LOCK_GUARD(&guard_paths_lock);
        g_hash_table_insert(guard_paths, (void *)key,
                            object_get_canonical_path(OBJECT(dev)));
    }
    if (guard_foreign_type(type) ||
        (object_dynamic_cast(OBJECT(dev), "virtio-gpu-device") &&
         object_property_find(OBJECT(dev), "blob") &&
         object_property_get_bool(OBJECT(dev), "blob", NULL))) {
        g_ptr_array_add(guard_foreign, dev);
    }
}

static void guard_device_unrealize(DeviceListener *listener, DeviceState *dev)
{
    const void *key = guard_device_key(dev);

    if (key) {
        QEMU_LOCK_GUARD(&guard_paths_lock);
        g_hash_table_remove(guard_paths, key);
    }
    g_ptr_array_remove(guard_foreign, dev);
}

static bool guard_device_hide(DeviceListener *listener, const QDict *opts,
                              bool from_json, Error **errp)
{
    const char *driver = qdict_get_try_str(opts, "driver");
    const GuardForeign *f = driver ? guard_foreign_type(driver) : NULL;

    if (f && guard_active() && !GUARD_MUTANT(GUARD_HOOK_HOTPLUG)) {
        error_setg(errp, "'%s' can't be plugged while guest memory is "
                   "protected, as QEMU can't check its accesses: set all "
                   "memory to 'read-write' with subpage-set-access first",
                   driver);
    }
    return false;
}

static DeviceListener guard_device_listener = {
    .realize = guard_device_realize,
    .unrealize = guard_device_unrealize,
    .hide_device = guard_device_hide,
};

void guard_devices_init(void)
{
    qemu_mutex_init(&guard_paths_lock);
    guard_paths = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    guard_foreign = g_ptr_array_new();
    device_listener_register(&guard_device_listener);
}

char *guard_device_path(const void *who)
{
    if (!who || !guard_paths) {
        return NULL;
    }
    QEMU_LOCK_GUARD(&guard_paths_lock);
    return g_strdup(g_hash_table_lookup(guard_paths, who));
}

/*
 * vhost: the backend has guest memory mapped, and the guest's rings tell it
 * where to write.  The BQL protects the list.
 */
static GPtrArray *guard_vhosts;

bool guard_vhost_refused(Error **errp)
{
    if (!guard_active() || GUARD_MUTANT(GUARD_HOOK_VHOST)) {
        return false;
    }
    error_setg(errp, "vhost can't be used while guest memory is protected, as "
               "its backend has guest memory mapped: do without vhost, or set "
               "all memory to 'read-write' with subpage-set-access first");
    return true;
}

bool guard_vhost_begin(struct vhost_dev *hdev, Error **errp)
{
    if (guard_vhost_refused(errp)) {
        return false;
    }
    if (!guard_vhosts) {
        guard_vhosts = g_ptr_array_new();
    }
    g_ptr_array_add(guard_vhosts, hdev);
    return true;
}

void guard_vhost_end(struct vhost_dev *hdev)
{
    if (guard_vhosts) {
        g_ptr_array_remove(guard_vhosts, hdev);
    }
}

static const char *guard_vhost_kind(const struct vhost_dev *hdev)
{
    switch (hdev->vhost_ops ? hdev->vhost_ops->backend_type
                            : VHOST_BACKEND_TYPE_NONE) {
    case VHOST_BACKEND_TYPE_KERNEL:
        return "vhost in the kernel";
    case VHOST_BACKEND_TYPE_USER:
        return "a vhost-user process";
    case VHOST_BACKEND_TYPE_VDPA:
        return "a vhost-vdpa device";
    default:
        return "a vhost backend";
    }
}

static bool guard_foreign_refuses(Error **errp)
{
    g_autofree char *path = NULL;

    if (GUARD_MUTANT(GUARD_HOOK_FOREIGN)) {
        return false;
    }
    if (guard_vhosts && guard_vhosts->len) {
        const struct vhost_dev *hdev = g_ptr_array_index(guard_vhosts, 0);

        path = hdev->vdev ? object_get_canonical_path(OBJECT(hdev->vdev))
                          : g_strdup("not started yet");
        error_setg(errp, "memory can't be protected: %s (%s) has guest memory "
                   "mapped: do without vhost, or unplug the device",
                   guard_vhost_kind(hdev), path);
        return true;
    }
    if (guard_foreign && guard_foreign->len) {
        Object *dev = g_ptr_array_index(guard_foreign, 0);
        const GuardForeign *f = guard_foreign_type(object_get_typename(dev));

        path = object_get_canonical_path(dev);
        error_setg(errp, "memory can't be protected: device '%s' (%s) %s",
                   path, object_get_typename(dev),
                   f ? f->why : "shows guest memory by blob resources: "
                                "set its property blob=off");
        return true;
    }
    return false;
}

bool guard_can_arm(Error **errp)
{
    return !guard_foreign_refuses(errp) && guard_migration_allows(errp);
}

/*
 * Iothreads make accesses and look up maps without the BQL, in RCU critical
 * sections, and never poll meanwhile.  So one that runs a bottom half is at
 * neither; and nobody is any more when a grace period has ended.  Either may
 * be long in coming: an iothread may be held up by a disk or by the lock of a
 * migration, and a migration is in a critical section while it waits for its
 * socket.
 */
typedef struct GuardAsked {
    GuardIothreads *all;
    IOThread *iothread;
    bool answered;
} GuardAsked;

struct GuardIothreads {
    struct rcu_head rcu;
    QemuSemaphore sign;
    unsigned left;              /* how many have not answered */
    unsigned n;
    bool grace;                 /* a grace period is waited for as well */
    GuardAsked *asked;
};

/* Grace periods are for iothreads that don't answer in this time, in ms */
#define GUARD_ANSWER_MS     10

static void guard_iothreads_clear(void *opaque)
{
    GuardIothreads *t = opaque;

    qemu_sem_destroy(&t->sign);
    g_free(t->asked);
}

static void guard_iothreads_release(GuardIothreads *t)
{
    g_atomic_rc_box_release_full(t, guard_iothreads_clear);
}

static void guard_iothreads_grace(GuardIothreads *t)
{
    qemu_sem_post(&t->sign);
    guard_iothreads_release(t);
}

static void guard_iothread_answer(void *opaque)
{
    GuardAsked *asked = opaque;
    GuardIothreads *t = asked->all;

    qatomic_set(&asked->answered, true);
    if (qatomic_fetch_dec(&t->left) == 1) {
        qemu_sem_post(&t->sign);
    }
    guard_iothreads_release(t);
}

GuardIothreads *guard_iothreads_ask(void)
{
    const GPtrArray *running = guard_iothreads();
    GuardIothreads *t;
    guint i;

    if (!running || !running->len || GUARD_MUTANT(GUARD_HOOK_IOTHREADS)) {
        return NULL;
    }
    t = g_atomic_rc_box_new0(GuardIothreads);
    qemu_sem_init(&t->sign, 0);
    t->asked = g_new0(GuardAsked, running->len);
    for (i = 0; i < running->len; i++) {
        IOThread *iothread = g_ptr_array_index(running, i);

        if (!iothread->stopping) {
            t->asked[t->n++] = (GuardAsked) {
                .all = t,
                .iothread = (IOThread *)object_ref(OBJECT(iothread)),
            };
        }
    }
    if (!t->n) {
        guard_iothreads_release(t);
        return NULL;
    }
    t->left = t->n;
    for (i = 0; i < t->n; i++) {
        g_atomic_rc_box_acquire(t);
        aio_bh_schedule_oneshot(
            iothread_get_aio_context(t->asked[i].iothread),
            guard_iothread_answer, &t->asked[i]);
    }
    return t;
}

bool guard_iothreads_wait(GuardIothreads *t, int64_t end, Error **errp)
{
    g_autofree char *path = NULL;
    bool good;
    guint i;

    if (!t) {
        return true;
    }
    /* One of them may wait for the BQL, to access a device; call_rcu() does */
    bql_unlock();
    good = qemu_sem_timedwait(&t->sign, GUARD_ANSWER_MS) == 0;
    if (!good) {
        if (!t->grace) {
            /* Only now, as the guest could have many of them queued up */
            t->grace = true;
            g_atomic_rc_box_acquire(t);
            call_rcu(t, guard_iothreads_grace, rcu);
        }
        do {
            int64_t left = (end - g_get_monotonic_time()) / 1000;

            good = qemu_sem_timedwait(&t->sign, CLAMP(left, 0, 1000)) == 0;
        } while (!good && g_get_monotonic_time() < end);
    }
    bql_lock();
    if (good) {
        return true;
    }
    for (i = 0; i < t->n && !path; i++) {
        if (!qatomic_read(&t->asked[i].answered)) {
            path = object_get_canonical_path(OBJECT(t->asked[i].iothread));
        }
    }
    error_setg(errp, "iothread '%s' is still at work on what it began before "
               "the command: try again when its disks answer and no migration "
               "waits for its destination", path ?: "(deleted)");
    return false;
}

void guard_iothreads_done(GuardIothreads *t)
{
    guint i;

    for (i = 0; t && i < t->n; i++) {
        object_unref(OBJECT(t->asked[i].iothread));
    }
    if (t) {
        guard_iothreads_release(t);
    }
}
