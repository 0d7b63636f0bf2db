"""The worst guest: does all that a guest can do to others for argv[1] seconds, and writes to
/workspace how often it did each. Then it takes the host's link from PID 1 and writes garbage."""
import ctypes, json, os, random, signal, socket, sys, threading, time, traceback

end = time.monotonic() + float(sys.argv[1])
done = dict.fromkeys(("fork", "memory", "disk", "files", "log", "api", "gateway", "workspace", "link"), 0)


def note(name):
    with open("/workspace/.new", "w") as f:
        json.dump(done, f)
    os.rename("/workspace/.new", "/workspace/" + name)


def expendable():
    with open("/proc/self/oom_score_adj", "w") as f:
        f.write("1000")


def loop(what, one):
    while time.monotonic() < end:
        try:
            one()
        except OSError:
            time.sleep(0.01)
        done[what] += 1


def fork():  # each makes more, as long as it can and for a second
    until = time.monotonic() + 1
    pid = os.fork()
    if pid == 0:
        expendable()
        while time.monotonic() < until:
            try:
                os.fork()
            except OSError:
                pass
        os._exit(0)
    os.waitpid(pid, 0)
    time.sleep(0.5)


def memory():
    pid = os.fork()
    if pid == 0:
        expendable()
        keep = []
        while True:
            keep.append(bytearray(16 << 20))
    os.waitpid(pid, 0)


def disk():
    fd = os.open("/fill-%d" % done["disk"], os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(fd, os.urandom(1 << 20) * 8)
        os.fsync(fd)
        os.posix_fallocate(fd, 0, 64 << 30)
    finally:
        os.close(fd)


def files():
    for i in range(1000):
        os.close(os.open("/tmp/n%d-%d" % (done["files"], i), os.O_CREAT, 0o600))


def log():
    os.write(1, b"\x1b[2J\x00" + b"x" * 65536)
    os.write(2, b"\n" * 4096)


kept = []


def talk(address):
    s = socket.socket()
    s.settimeout(1)
    kept.append(s)
    if len(kept) > 400:
        kept.pop(0).close()
    s.connect(address)
    s.send(os.urandom(random.randrange(1, 4096)))


def api():
    talk(("127.0.0.1", 7777))


def gateway():
    talk(("192.168.127.1", random.choice((2049, 53, random.randrange(1, 65536)))))
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.sendto(os.urandom(random.randrange(1, 1400)), ("192.168.127.1", random.choice((53, random.randrange(1, 65536)))))
    u.close()


def workspace():
    name = "/workspace/" + "deep/" * random.randrange(20)
    os.makedirs(name, exist_ok=True)
    with open(name + "f%d" % done["workspace"], "wb") as f:
        f.write(os.urandom(4096))
    os.symlink("/etc/passwd", name + "l%d" % done["workspace"])


def link():
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = libc.syscall(434, 1, 0)  # pidfd_open(2)
    for fd in os.listdir("/proc/1/fd"):
        path = "/proc/1/fd/" + fd
        if os.path.lexists(path) and "vport" in os.path.realpath(path):
            mine = libc.syscall(438, pidfd, int(fd), 0)  # pidfd_getfd(2)
            os.set_blocking(mine, False)
            for _ in range(2000):
                try:
                    os.write(mine, os.urandom(random.randrange(1, 65536)))
                except OSError:  # it is full
                    time.sleep(0.001)
                done["link"] += 1


with open("/proc/self/oom_score_adj", "w") as f:
    f.write("-1000")
threads = [threading.Thread(target=loop, args=(f.__name__, f)) for f in (fork, memory, disk, files, log, api, gateway, workspace)]
for t in threads:
    t.start()
for t in threads:
    t.join()
note("done")
try:
    link()
except Exception:
    with open("/workspace/error", "w") as f:
        traceback.print_exc(file=f)
note("linked")
signal.pause()
