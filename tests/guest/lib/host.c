/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Talk with run.py over the serial line: "@verb json" goes out, one line
 * that begins with "=" comes back.
 */

#include "internal.h"

static char reply[65536];
static char text[16384];
static int host_lock;

static const char *ask(const char *verb)
{
    size_t n = 0;
    char c;

    serial_wakes();
    serial_line("@%s %s\n", verb, text);
    do {
        while (!(inb(COM1 + 5) & 1)) {
            doze();
        }
        c = inb(COM1);
        if (n < sizeof(reply) - 1) {
            reply[n++] = c;
        }
    } while (c != '\n');
    reply[n - 1] = 0;
    if (reply[0] != '=') {
        bail("the host answered \"%s\"", reply);
    }
    return reply + 1;
}

static void lock(void)
{
    while (__atomic_exchange_n(&host_lock, 1, __ATOMIC_ACQUIRE)) {
        pause();
    }
}

static void unlock(void)
{
    __atomic_store_n(&host_lock, 0, __ATOMIC_RELEASE);
}

const char *host(const char *verb, const char *fmt, ...)
{
    const char *r;
    va_list ap;

    lock();
    va_start(ap, fmt);
    vformat(text, sizeof(text), fmt, ap);
    va_end(ap);
    r = ask(verb);
    unlock();
    return r;
}

const char *qmp(const char *command, const char *fmt, ...)
{
    const char *r;
    va_list ap;
    int n;

    lock();
    n = format(text, sizeof(text), "{\"execute\": \"%s\"", command);
    n += format(text + n, sizeof(text) - n, ", \"arguments\": ");
    va_start(ap, fmt);
    n += vformat(text + n, sizeof(text) - n, fmt, ap);
    va_end(ap);
    format(text + n, sizeof(text) - n, "}");
    r = ask("qmp");
    unlock();
    return r;
}

bool qmp_failed(const char *r)
{
    return !json(r, "return");
}

/* --- A reader for the JSON that the host sends: one line, well-formed --- */

static const char *blank(const char *s)
{
    while (*s == ' ') {
        s++;
    }
    return s;
}

/* Behind the value that begins at @s */
static const char *behind(const char *s)
{
    int depth = 0;

    do {
        if (*s == '"') {
            for (s++; *s && *s != '"'; s++) {
                if (*s == '\\' && s[1]) {
                    s++;
                }
            }
            s += *s == '"';
        } else if (*s == '{' || *s == '[') {
            depth++;
            s++;
        } else if (*s == '}' || *s == ']') {
            depth--;
            s++;
        } else if (depth && *s) {
            s++;
        } else {
            while (*s && *s != ',' && *s != ']' && *s != '}' && *s != ' ') {
                s++;
            }
        }
    } while (depth > 0 && *s);
    return s;
}

const char *json(const char *s, const char *path)
{
    s = blank(s);
    while (*path) {
        size_t n = 0;
        uint64_t index = 0;
        bool found = false, array = *s == '[';

        while (path[n] && path[n] != '.') {
            index = index * 10 + path[n] - '0';
            n++;
        }
        if (*s != '{' && *s != '[') {
            return NULL;
        }
        s = blank(s + 1);
        for (uint64_t i = 0; *s && *s != '}' && *s != ']'; i++) {
            if (array) {
                found = i == index;
            } else {
                found = !strncmp(s + 1, path, n) && s[n + 1] == '"';
                s = blank(behind(s));
                s = blank(s + (*s == ':'));
            }
            if (found) {
                break;
            }
            s = blank(behind(s));
            s = blank(s + (*s == ','));
        }
        if (!found) {
            return NULL;
        }
        path += n;
        path += *path == '.';
    }
    return s;
}

bool json_is(const char *s, const char *path, const char *want)
{
    const char *v = json(s, path);
    size_t n = strlen(want);

    if (!v) {
        return false;
    }
    if (*v == '"') {
        return !strncmp(v + 1, want, n) && v[n + 1] == '"';
    }
    return !strncmp(v, want, n) && (size_t)(behind(v) - v) == n;
}

int64_t json_number(const char *s, const char *path, int64_t otherwise)
{
    const char *v = json(s, path);
    bool negative = v && *v == '-';
    uint64_t n = 0;

    if (!v || v[negative] < '0' || v[negative] > '9') {
        return otherwise;
    }
    for (v += negative; *v >= '0' && *v <= '9'; v++) {
        n = n * 10 + *v - '0';
    }
    return negative ? -n : n;
}

void json_text(const char *s, const char *path, char *to, size_t size)
{
    const char *v = json(s, path);
    size_t n = 0;

    if (v && *v == '"') {
        for (v++; *v && *v != '"' && n < size - 1; n++) {
            to[n] = *v++;
        }
    }
    to[n] = 0;
}

int json_length(const char *s, const char *path)
{
    const char *v = json(s, path);
    int n = 0;

    if (!v || *v != '[') {
        return -1;
    }
    for (v = blank(v + 1); *v && *v != ']'; n++) {
        v = blank(behind(v));
        v = blank(v + (*v == ','));
    }
    return n;
}
