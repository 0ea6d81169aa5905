/*
 * The floor under `mk run`: the same namespaces, mounts and privileges, made by a static C program that reads no image,
 * checks no path and explains no failure. What `mk run` takes beyond it is the price of mk.
 *
 *     floor [-u] ROOTFS CONF SCRATCH COMMAND [ARGUMENT...]
 *
 * ROOTFS and CONF are layers, SCRATCH an empty folder. Must be called as root; with -u as an ordinary user, who becomes root of
 * a user namespace. Compiled with `-include` of a file that
 * defines `filter`, the instructions of mk's seccomp filter.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAFE (MS_NOSUID | MS_NODEV)
#define DATA (SAFE | MS_NOEXEC)

/* Whether an ordinary user calls. */
static int user;

static void must(long returned, const char *call)
{
	if (returned < 0)
		err(1, "%s", call);
}

/* Returns DIR/NAME, in one of a few buffers. */
static const char *in(const char *dir, const char *name)
{
	static char paths[4][4096];
	static unsigned next;
	char *path = paths[next++ % 4];
	snprintf(path, sizeof paths[0], "%s/%s", dir, name);
	return path;
}

static long clone_into(uint64_t flags)
{
	struct clone_args args = { .flags = flags, .exit_signal = SIGCHLD };
	return syscall(SYS_clone3, &args, sizeof args);
}

static void mount_new(const char *kind, const char *place, unsigned long flags, const char *options)
{
	must(mount(kind, place, kind, flags, options), place);
}

static void bind_mount(const char *source, const char *place)
{
	must(mount(source, place, NULL, MS_BIND, NULL), place);
}

static void write_text(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);
	must(file, path);
	must(write(file, text, strlen(text)), path);
	close(file);
}

/* Makes the user who called root of this user namespace. */
static void become_root(uid_t uid, gid_t gid)
{
	char map[64];
	write_text("/proc/self/setgroups", "deny");
	snprintf(map, sizeof map, "0 %u 1", uid);
	write_text("/proc/self/uid_map", map);
	snprintf(map, sizeof map, "0 %u 1", gid);
	write_text("/proc/self/gid_map", map);
}

static void devices(void)
{
	static const char *const nodes[] = { "full", "null", "random", "tty", "urandom", "zero" };
	static const char *const links[][2] = {
		{ "/proc/self/fd", "fd" },	 { "pts/ptmx", "ptmx" },	    { "/proc/self/fd/2", "stderr" },
		{ "/proc/self/fd/0", "stdin" }, { "/proc/self/fd/1", "stdout" },
	};
	mount_new("tmpfs", "root/dev", DATA, "mode=0755");
	for (size_t at = 0; at < sizeof nodes / sizeof *nodes; at++) {
		const char *place = in("root/dev", nodes[at]);
		int file = open(place, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
		must(file, place);
		close(file);
		bind_mount(in("/dev", nodes[at]), place);
	}
	for (size_t at = 0; at < sizeof links / sizeof *links; at++)
		must(symlink(links[at][0], in("root/dev", links[at][1])), links[at][1]);
	must(mkdir("root/dev/pts", 0755), "pts");
	must(mkdir("root/dev/shm", 0755), "shm");
	must(mkdir("root/dev/mqueue", 0755), "mqueue");
	/* Of a user's ids there is but one in there. */
	mount_new("devpts", "root/dev/pts", MS_NOSUID | MS_NOEXEC,
		  user ? "newinstance,ptmxmode=0666,mode=0620" : "newinstance,ptmxmode=0666,mode=0620,gid=5");
	mount_new("tmpfs", "root/dev/shm", DATA, "mode=1777");
	mount_new("mqueue", "root/dev/mqueue", DATA, NULL);
}

static void masks(void)
{
	static const char *const files[] = { "kcore", "keys", "latency_stats", "sched_debug", "timer_list", "timer_stats", "interrupts",
					     "kpagecgroup", "kpagecount", "kpageflags", "slabinfo", "vmallocinfo" };
	static const char *const folders[] = { "proc/acpi", "proc/asound", "proc/scsi", "sys/devices/virtual/powercap", "sys/firmware",
					       "sys/kernel/slab" };
	static const char *const frozen[] = { "bus", "fs", "irq", "pressure", "sys", "sysrq-trigger" };
	struct stat there;
	for (size_t at = 0; at < sizeof files / sizeof *files; at++) {
		const char *place = in("root/proc", files[at]);
		if (stat(place, &there) == 0)
			bind_mount("/dev/null", place);
	}
	for (size_t at = 0; at < sizeof folders / sizeof *folders; at++) {
		const char *place = in("root", folders[at]);
		if (stat(place, &there) < 0)
			continue;
		bind_mount("empty", place);
		must(mount(NULL, place, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | DATA, NULL), place);
	}
	for (size_t at = 0; at < sizeof frozen / sizeof *frozen; at++) {
		const char *place = in("root/proc", frozen[at]);
		if (stat(place, &there) < 0)
			continue;
		bind_mount(place, place);
		must(mount(NULL, place, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | DATA, NULL), place);
	}
}

static void root(const char *rootfs, const char *conf, const char *scratch)
{
	char layers[12288];
	must(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL), "slave");
	mount_new("tmpfs", scratch, SAFE, "mode=0700");
	must(chdir(scratch), "chdir");
	must(mkdir("upper", 0755), "upper");
	must(mkdir("work", 0755), "work");
	must(mkdir("root", 0755), "root");
	must(mkdir("empty", 0755), "empty");
	snprintf(layers, sizeof layers, "lowerdir=%s:%s,upperdir=upper,workdir=work", conf, rootfs);
	mount_new("overlay", "root", MS_NODEV, layers);
	static const char *const places[] = { "proc", "sys", "dev", "tmp", "run" };
	for (size_t at = 0; at < sizeof places / sizeof *places; at++)
		if (mkdir(in("root", places[at]), 0755) < 0 && errno != EEXIST)
			err(1, "%s", places[at]);
	mount_new("proc", "root/proc", DATA, NULL);
	mount_new("sysfs", "root/sys", DATA | MS_RDONLY, NULL);
	devices();
	mount_new("tmpfs", "root/tmp", SAFE, "mode=1777");
	mount_new("tmpfs", "root/run", SAFE, "mode=0755");
	masks();
	must(chdir("root"), "chdir");
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "umount2");
}

static void loopback(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	must(sock, "socket");
	must(ioctl(sock, SIOCSIFFLAGS, &request), "SIOCSIFFLAGS");
	close(sock);
}

#define BIT(capability) (1ULL << (capability))

static void give_up(void)
{
	const uint64_t keep = BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_FSETID) | BIT(CAP_KILL) |
			      BIT(CAP_SETGID) | BIT(CAP_SETUID) | BIT(CAP_SETPCAP) | BIT(CAP_NET_BIND_SERVICE) |
			      BIT(CAP_NET_RAW) | BIT(CAP_SYS_CHROOT) | BIT(CAP_AUDIT_WRITE) | BIT(CAP_SETFCAP);
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2];
	for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
		if (!(keep & BIT(capability)))
			must(prctl(PR_CAPBSET_DROP, capability), "PR_CAPBSET_DROP");
	for (int half = 0; half < 2; half++) {
		uint32_t bits = (uint32_t)(keep >> (32 * half));
		sets[half] = (struct __user_cap_data_struct){ .effective = bits, .permitted = bits };
	}
	must(syscall(SYS_capset, &header, sets), "capset");
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
	must(syscall(SYS_close_range, 3, ~0U, 0), "close_range");
	struct sock_fprog program = { .len = sizeof filter / sizeof *filter, .filter = (struct sock_filter *)filter };
	must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program), "seccomp");
}

/* Waits for PID, as process 1 among whatever else ends; returns the exit code that a shell would show. */
static int wait_for(pid_t pid)
{
	int status;
	for (;;) {
		pid_t ended = wait(&status);
		must(ended, "wait");
		if (ended == pid)
			return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	}
}

int main(int count, char **words)
{
	uid_t uid = getuid();
	gid_t gid = getgid();
	if (count > 1 && strcmp(words[1], "-u") == 0) {
		user = 1;
		count--;
		words++;
	}
	if (count < 5)
		errx(2, "expected: floor [-u] ROOTFS CONF SCRATCH COMMAND [ARGUMENT...]");
	char *environment[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", NULL };
	long child = clone_into(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWCGROUP | CLONE_NEWNET |
				(user ? CLONE_NEWUSER : 0));
	must(child, "clone3");
	if (child)
		return wait_for((pid_t)child);
	must(prctl(PR_SET_PDEATHSIG, SIGKILL), "PR_SET_PDEATHSIG");
	if (user)
		become_root(uid, gid);
	must(setsid(), "setsid");
	root(words[1], words[2], words[3]);
	must(sethostname("floor", 5), "sethostname");
	loopback();
	child = clone_into(0);
	must(child, "clone3");
	if (child)
		return wait_for((pid_t)child);
	must(setsid(), "setsid");
	give_up();
	execvpe(words[4], words + 4, environment);
	err(127, "%s", words[4]);
}
