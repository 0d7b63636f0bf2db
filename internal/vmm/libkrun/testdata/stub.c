// A library with libkrun's interface and without its VMs. It writes down each call with what
// the arguments point to, and plays the part of a guest: it speaks on the port, the card and
// the console as the guest of package vmmtest does.
//
// The calls are in a file beside the library, one a line, after the process's id.
// What is defined when it is compiled makes it another library: OLD lacks a function, BARE
// was built without a network card, REFUSES does not start a VM.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CTX = 7, CONSOLE = 3 };

static int calls = -1;
static int serial = -1, port = -1, card = -1;
static long uid = -1, gid = -1;
static char kernel[512], initrd[512], cmdline[4096];
static uint8_t mac[6];

static void note(const char *format, ...) {
	char line[8192];
	int n = snprintf(line, sizeof line, "%d ", (int)getpid());
	va_list args;
	va_start(args, format);
	n += vsnprintf(line + n, sizeof line - n - 1, format, args);
	va_end(args);
	line[n++] = '\n';
	if (calls < 0) {
		Dl_info self;
		char path[1024];
		if (!dladdr((void *)&calls, &self)) abort();
		snprintf(path, sizeof path, "%s.calls", self.dli_fname);
		calls = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
	}
	if (write(calls, line, n) != n) abort();
}

int32_t krun_has_feature(uint64_t feature) {
#ifdef BARE
	if (feature == 0) return 0;
#endif
	return feature < 12 ? 1 : -EINVAL;
}

int32_t krun_init_log(int fd, uint32_t level, uint32_t style, uint32_t options) {
	note("init_log %d %u %u %u", fd, level, style, options);
	return 0;
}

int32_t krun_create_ctx(void) {
	note("create_ctx");
	return CTX;
}

int32_t krun_set_vm_config(uint32_t ctx, uint8_t vcpus, uint32_t mib) {
	note("set_vm_config %u %u %u", ctx, vcpus, mib);
	return 0;
}

int32_t krun_set_kernel(uint32_t ctx, const char *path, uint32_t format, const char *ramdisk, const char *line) {
	note("set_kernel %u %u initrd=%s %s", ctx, format, ramdisk ? "yes" : "no", line);
	snprintf(kernel, sizeof kernel, "%s", path);
	snprintf(initrd, sizeof initrd, "%s", ramdisk ? ramdisk : "");
	snprintf(cmdline, sizeof cmdline, "%s", line);
	return 0;
}

int32_t krun_add_disk(uint32_t ctx, const char *id, const char *path, bool read_only) {
	note("add_disk %u %s %s %d", ctx, id, path, read_only);
	int fd = open(path, read_only ? O_RDONLY : O_RDWR);
	if (fd < 0) return -errno;
	close(fd);
	return 0;
}

int32_t krun_add_net_unixstream(uint32_t ctx, const char *path, int fd, uint8_t *const address, uint32_t features, uint32_t flags) {
	memcpy(mac, address, 6);
	note("add_net_unixstream %u path=%s blocking=%d %02x:%02x:%02x:%02x:%02x:%02x 0x%x %u", ctx, path ? path : "NULL",
		!(fcntl(fd, F_GETFL) & O_NONBLOCK), mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], features, flags);
	card = fd;
	return 0;
}

int32_t krun_disable_implicit_console(uint32_t ctx) {
	note("disable_implicit_console %u", ctx);
	return 0;
}

int32_t krun_disable_implicit_vsock(uint32_t ctx) {
	note("disable_implicit_vsock %u", ctx);
	return 0;
}

int32_t krun_add_serial_console_default(uint32_t ctx, int in, int out) {
	note("add_serial_console_default %u %d blocking=%d", ctx, in, !(fcntl(out, F_GETFL) & O_NONBLOCK));
	serial = out;
	return 0;
}

int32_t krun_add_virtio_console_multiport(uint32_t ctx) {
	note("add_virtio_console_multiport %u", ctx);
	return CONSOLE;
}

#ifndef OLD
int32_t krun_add_console_port_inout(uint32_t ctx, uint32_t console, const char *name, int in, int out) {
	note("add_console_port_inout %u %u %s same=%d", ctx, console, name, in == out);
	port = in;
	return 0;
}
#endif

int32_t krun_setuid(uint32_t ctx, uid_t id) {
	note("setuid %u", ctx);
	uid = id;
	return 0;
}

int32_t krun_setgid(uint32_t ctx, gid_t id) {
	note("setgid %u", ctx);
	gid = id;
	return 0;
}

// say writes to the console; what finds no room is lost.
static void say(const char *text) { (void)!write(serial, text, strlen(text)); }

// readable tells how many bytes a file begins with that can be read by its name, at most 64.
static int readable(const char *path) {
	char b[64];
	int fd = open(path, O_RDONLY);
	if (fd < 0) return -errno;
	int n = read(fd, b, sizeof b);
	close(fd);
	return n;
}

static void send_all(int fd, const uint8_t *b, size_t n) {
	while (n > 0) {
		ssize_t w = write(fd, b, n);
		if (w < 0 && errno == EAGAIN) {
			struct pollfd p = {fd, POLLOUT, 0};
			poll(&p, 1, -1);
			continue;
		}
		if (w < 0) abort();
		b += w;
		n -= w;
	}
}

static void receive_all(int fd, uint8_t *b, size_t n) {
	while (n > 0) {
		ssize_t r = read(fd, b, n);
		if (r <= 0) abort();
		b += r;
		n -= r;
	}
}

// send_frames sends a frame of an experimental protocol now and then.
static void *send_frames(void *unused) {
	for (;;) {
		uint8_t b[4 + 60] = {0, 0, 0, 60};
		memset(b + 4, 0xff, 6);
		memcpy(b + 10, mac, 6);
		b[16] = 0x88;
		b[17] = 0xb5;
		send_all(card, b, sizeof b);
		usleep(50 * 1000);
	}
	return unused;
}

// receive_frames aborts over what libkrun would.
static void *receive_frames(void *unused) {
	static uint8_t b[65550];
	for (;;) {
		uint8_t size[4];
		receive_all(card, size, 4);
		size_t n = (size_t)size[0] << 24 | size[1] << 16 | size[2] << 8 | size[3];
		if (n < 14 || n > sizeof b) abort();
		receive_all(card, b, n);
	}
	return unused;
}

static void end(const char *last) {
	say(last);
	_exit(0);
}

// obey does what is at the end of what came over the port.
static void obey(const char *seen) {
	if (strstr(seen, "\001power-off\n") || strstr(seen, "\001reboot\n")) end("reboot: Restarting system\n");
	if (strstr(seen, "\001panic\n")) end("Kernel panic - not syncing: told to die\n");
	if (strstr(seen, "\001flood\n"))
		for (;;) say("flood flood flood flood flood flood flood flood flood flood flood flood\n");
}

static void serve(void) {
	static char b[32 << 10], seen[64];
	size_t have = 0;
	for (;;) {
		ssize_t n = read(port, b, sizeof b);
		if (n < 0 && errno == EAGAIN) {
			struct pollfd p = {port, POLLIN, 0};
			poll(&p, 1, -1);
			continue;
		}
		if (n <= 0) abort();
		for (ssize_t i = 0; i < n; i++) {
			if (have == sizeof seen - 1) memmove(seen, seen + 1, --have);
			seen[have++] = b[i] ? b[i] : ' ';
			seen[have] = 0;
			if (b[i] == '\n') obey(seen);
		}
		send_all(port, (uint8_t *)b, n);
	}
}

int32_t krun_start_enter(uint32_t ctx) {
	if (gid >= 0 && setgid(gid)) return -errno;
	if (uid >= 0 && setuid(uid)) return -errno;
	note("start_enter %u uid=%s kernel=%d initrd=%d", ctx, getuid() == 0 ? "root" : "other", readable(kernel), *initrd ? readable(initrd) : 0);
#ifdef REFUSES
	fprintf(stderr, "Building the microVM failed: no such device\n");
	return -EINVAL;
#endif
	if (strstr(cmdline, "ignore_loglevel")) end("Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n");
	pthread_t thread;
	if (card >= 0 && (pthread_create(&thread, NULL, send_frames, NULL) || pthread_create(&thread, NULL, receive_frames, NULL))) abort();
	fcntl(port, F_SETFL, fcntl(port, F_GETFL) | O_NONBLOCK);
	say("guest is up\n");
	serve();
	return 0;
}
