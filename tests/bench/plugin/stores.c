/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A TCG plugin that gets a callback on each store and does as little as it
 * can: counts it.  What it costs is what any plugin that watches stores
 * costs at least.  bench.py builds it for the QEMU without our patches.
 */

#include <stdio.h>

#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* In lines of a cache of their own, so that CPUs don't wait for each other */
static struct {
    uint64_t stores;
    uint64_t pad[7];
} counters[256];

static void on_store(unsigned int cpu, qemu_plugin_meminfo_t info,
                     uint64_t addr, void *opaque)
{
    (void)info;
    (void)addr;
    (void)opaque;
    counters[cpu % 256].stores++;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i),
                                         on_store, QEMU_PLUGIN_CB_NO_REGS,
                                         QEMU_PLUGIN_MEM_W, NULL);
    }
}

static void at_exit(qemu_plugin_id_t id, void *opaque)
{
    uint64_t sum = 0;
    char text[40];

    (void)id;
    (void)opaque;
    for (int i = 0; i < 256; i++) {
        sum += counters[i].stores;
    }
    snprintf(text, sizeof(text), "stores: %" PRIu64 "\n", sum);
    qemu_plugin_outs(text);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id,
                                           const qemu_info_t *info,
                                           int argc, char **argv)
{
    (void)info;
    (void)argc;
    (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
