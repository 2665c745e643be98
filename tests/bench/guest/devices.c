/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Throughput of a disk and of a network card: legacy virtio, by interrupt. */

#include "bench.h"

/* Registers of a legacy virtio device on PCI, in ports */
#define VIRTIO_FEATURES     0x04
#define VIRTIO_QUEUE_PFN    0x08
#define VIRTIO_QUEUE_SIZE   0x0c
#define VIRTIO_QUEUE_SELECT 0x0e
#define VIRTIO_NOTIFY       0x10
#define VIRTIO_STATUS       0x12
#define VIRTIO_ISR          0x13
#define VIRTIO_CONFIG       0x14

#define VIRTIO_VENDOR       0x1af4
#define VIRTIO_NET          0x1000
#define VIRTIO_BLK          0x1001

#define DESC_NEXT           1
#define DESC_WRITE          2

#define PIC1                0x20
#define PIC2                0xa0
#define PIC_EOI             0x20
#define PIC_VECTOR          0x20

/* Requests on their way at a time */
#define BATCH               32

typedef struct Desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
} Desc;

typedef struct Avail {
    uint16_t flags, index, ring[];
} Avail;

typedef struct Used {
    uint16_t flags, index;
    struct {
        uint32_t id, len;
    } ring[];
} Used;

typedef struct Queue {
    uint16_t port, number, size, seen;
    Desc *desc;
    Avail *avail;
    Used *used;
} Queue;

/*
 * --- Interrupts: only that they end HLT matters ---
 *
 * The device asks for one until its ISR has been read, which is done later:
 * so the handler returns with interrupts off.
 */

asm(".pushsection .text\n"
    "bench_interrupt:\n\t"
    "push %rax\n\t"
    "mov $0x20, %al\n\t"
    "out %al, $0xa0\n\t"
    "out %al, $0x20\n\t"
    "pop %rax\n\t"
    "andl $~0x200, 16(%rsp)\n\t"
    "iretq\n"
    ".popsection");

static void interrupt_enable(unsigned irq)
{
    static bool ready;
    static uint8_t masks[2] = { 0xfb, 0xff };

    if (!ready) {
        static const uint8_t words[2][3] = {
            { PIC_VECTOR, 4, 1 }, { PIC_VECTOR + 8, 2, 1 },
        };

        ready = true;
        /* All of them: when the line falls early there is a spurious one */
        for (unsigned i = 0; i < 16; i++) {
            set_gate(&idt[PIC_VECTOR + i], bench_interrupt, 0, 0);
        }
        for (unsigned i = 0; i < 2; i++) {
            outb(i ? PIC2 : PIC1, 0x11);
            for (unsigned j = 0; j < 3; j++) {
                outb((i ? PIC2 : PIC1) + 1, words[i][j]);
            }
        }
    }
    masks[irq / 8] &= ~(1u << irq % 8);
    outb(PIC1 + 1, masks[0]);
    outb(PIC2 + 1, masks[1]);
}

/* --- PCI and virtio --- */

/* Finds a device that the firmware has given its ports; returns them */
static uint16_t virtio_start(uint16_t id)
{
    for (unsigned dev = 0; dev < 32; dev++) {
        if (pci_read32(dev, 0, 0) == (VIRTIO_VENDOR | (uint32_t)id << 16)) {
            uint16_t port = pci_read32(dev, 0, 0x10) & ~3u;

            pci_write8(dev, 0, 4, 7);
            interrupt_enable(pci_read32(dev, 0, 0x3c) & 15);
            outb(port + VIRTIO_STATUS, 0);
            outb(port + VIRTIO_STATUS, 1);
            outb(port + VIRTIO_STATUS, 3);
            outl(port + VIRTIO_FEATURES, 0);
            return port;
        }
    }
    bail("there is no virtio device 0x%x", id);
}

static void queue_init(Queue *q, uint16_t port, unsigned number)
{
    size_t driver;
    uint8_t *p;

    outw(port + VIRTIO_QUEUE_SELECT, number);
    *q = (Queue) {
        .port = port, .number = number,
        .size = inw(port + VIRTIO_QUEUE_SIZE),
    };
    driver = (sizeof(Desc) * q->size + 6 + 2 * q->size + PAGE_SIZE - 1) &
             -PAGE_SIZE;
    p = frames((driver + 6 + 8 * q->size + PAGE_SIZE - 1) / PAGE_SIZE);
    q->desc = (void *)p;
    q->avail = (void *)(p + sizeof(Desc) * q->size);
    q->used = (void *)(p + driver);
    outl(port + VIRTIO_QUEUE_PFN, (uintptr_t)p / PAGE_SIZE);
}

static void queue_offer(Queue *q, unsigned head)
{
    uint16_t index = q->avail->index;

    write16(&q->avail->ring[index % q->size], head);
    write16(&q->avail->index, index + 1);
}

static void queue_notify(Queue *q)
{
    outw(q->port + VIRTIO_NOTIFY, q->number);
}

/* Sleep until the device has used @n more */
static void queue_wait(Queue *q, uint16_t n)
{
    asm volatile("cli");
    while ((uint16_t)(read16(&q->used->index) - q->seen) < n) {
        asm volatile("sti; hlt" : : : "memory");
        inb(q->port + VIRTIO_ISR);
    }
    q->seen += n;
}

/* --- A disk: reads of 4 KiB --- */

static Queue disk;

static void disk_prepare(void)
{
    struct {
        uint32_t type, zero;
        uint64_t sector;
    } *header = frame();
    uint8_t *status = (uint8_t *)header + PAGE_SIZE / 2;
    uint16_t port = virtio_start(VIRTIO_BLK);

    queue_init(&disk, port, 0);
    if (disk.size < 3 * BATCH) {
        bail("the disk's queue is small: %u", disk.size);
    }
    for (unsigned i = 0; i < BATCH; i++) {
        /* Not side by side, so that they are not made one */
        header[i].sector = 16 * i;
        disk.desc[3 * i] = (Desc) {
            (uintptr_t)&header[i], 16, DESC_NEXT, 3 * i + 1
        };
        disk.desc[3 * i + 1] = (Desc) {
            (uintptr_t)frame(), PAGE_SIZE, DESC_NEXT | DESC_WRITE, 3 * i + 2
        };
        disk.desc[3 * i + 2] = (Desc) {
            (uintptr_t)&status[i], 1, DESC_WRITE, 0
        };
        status[i] = 0xff;
    }
    outb(port + VIRTIO_STATUS, 7);
}

/* @count requests, rounded up to batches */
static void disk_run(uint64_t count)
{
    for (uint64_t i = 0; i < count; i += BATCH) {
        for (unsigned j = 0; j < BATCH; j++) {
            queue_offer(&disk, 3 * j);
        }
        queue_notify(&disk);
        queue_wait(&disk, BATCH);
    }
    if (read8((void *)(uintptr_t)disk.desc[2].addr)) {
        bail("the disk reports an error");
    }
}

/* --- A network card: frames to the host of slirp, which sends them back --- */

#define FRAME       1442
#define FRAME_HEAD  10      /* that of virtio */
#define IP_HEAD     20

static Queue receive, transmit;

static uint16_t checksum(const uint8_t *p, size_t n)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < n; i += 2) {
        sum += p[i] << 8 | p[i + 1];
    }
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return ~sum;
}

static void put16(uint8_t *p, uint16_t v)
{
    p[0] = v >> 8;
    p[1] = v;
}

/* Who has 10.0.2.2, asked by 10.0.2.15: so slirp learns where that is */
static size_t arp_request(uint8_t *p, const uint8_t *mac)
{
    static const uint8_t text[] = {
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0x08, 0x06,
        0, 1, 0x08, 0, 6, 4, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 2, 15,
        0, 0, 0, 0, 0, 0, 10, 0, 2, 2,
    };

    memcpy(p, text, sizeof(text));
    memcpy(p + 6, mac, 6);
    memcpy(p + 22, mac, 6);
    return 60;
}

/* An echo request to 10.0.2.2, for which slirp answers by itself */
static size_t echo_request(uint8_t *p, const uint8_t *mac)
{
    static const uint8_t text[] = {
        0x52, 0x55, 10, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0x08, 0x00,
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2,
        8, 0, 0, 0, 0, 1, 0, 1,
    };
    uint8_t *ip = p + 14, *icmp = ip + IP_HEAD;

    memset(p, 0x5a, FRAME);
    memcpy(p, text, sizeof(text));
    memcpy(p + 6, mac, 6);
    put16(ip + 2, FRAME - 14);
    put16(ip + 10, checksum(ip, IP_HEAD));
    put16(icmp + 2, checksum(icmp, FRAME - 14 - IP_HEAD));
    return FRAME;
}

static void transmit_frame(unsigned index, size_t size)
{
    transmit.desc[index].len = FRAME_HEAD + size;
    queue_offer(&transmit, index);
}

static void net_prepare(void)
{
    uint16_t port = virtio_start(VIRTIO_NET);
    uint8_t mac[6];
    uint8_t *arp = frame(), *echo = frame();

    for (unsigned i = 0; i < sizeof(mac); i++) {
        mac[i] = inb(port + VIRTIO_CONFIG + i);
    }
    queue_init(&receive, port, 0);
    queue_init(&transmit, port, 1);
    for (unsigned i = 0; i < 2 * BATCH; i++) {
        receive.desc[i] = (Desc) {
            (uintptr_t)frame(), PAGE_SIZE, DESC_WRITE, 0
        };
        queue_offer(&receive, i);
        transmit.desc[i] = (Desc) {
            (uintptr_t)(i < BATCH ? echo : arp), 0, 0, 0
        };
    }
    outb(port + VIRTIO_STATUS, 7);
    queue_notify(&receive);

    transmit_frame(BATCH, arp_request(arp + FRAME_HEAD, mac));
    queue_notify(&transmit);
    queue_wait(&receive, 1);
    queue_offer(&receive, read32(&receive.used->ring[0].id));
    for (unsigned i = 0; i < BATCH; i++) {
        transmit.desc[i].len = FRAME_HEAD + echo_request(echo + FRAME_HEAD,
                                                         mac);
    }
}

/* @count frames there and back, rounded up to batches */
static void net_run(uint64_t count)
{
    for (uint64_t i = 0; i < count; i += BATCH) {
        uint16_t first = receive.seen;

        for (unsigned j = 0; j < BATCH; j++) {
            queue_offer(&transmit, j);
        }
        queue_notify(&transmit);
        queue_wait(&receive, BATCH);
        for (unsigned j = 0; j < BATCH; j++) {
            queue_offer(&receive, read32(&receive.used->ring[
                (uint16_t)(first + j) % receive.size].id));
        }
        queue_notify(&receive);
    }
    if (read32(&receive.used->ring[(uint16_t)(receive.seen - 1) %
                                   receive.size].len) != FRAME_HEAD + FRAME) {
        bail("what comes back is not what was sent");
    }
}

const Loop loops[] = {
    { "virtio-blk", disk_prepare, disk_run },
    { "slirp", net_prepare, net_run },
    { },
};
