"""What POSIX and Linux say of files, in the folder argv[1], in the manner of pjdfstest. To be run by root.

Prints a line for each check that fails, and a count at the end. "nfs" as argv[2] leaves out what NFS
version 3 cannot do.
"""
import errno, fcntl, mmap, os, shutil, socket, stat, sys, time

TOP, NFS = sys.argv[1], "nfs" in sys.argv[2:]
CHECKS = []
U, G, V, W = 1000, 1000, 1001, 1002
TYPES = ("file", "dir", "fifo", "sock", "link")


def check(f):
    CHECKS.append(f)
    return f


class Failed(Exception):
    pass


def eq(got, want, what=""):
    if got != want:
        raise Failed("%s: got %r, want %r" % (what, got, want))


def err(name, f, *args, **kw):
    """f fails with the named error."""
    try:
        got = f(*args, **kw)
    except OSError as e:
        if errno.errorcode[e.errno] not in name.split("|"):
            raise Failed("%s%r: got %s, want %s" % (f.__name__, args, errno.errorcode[e.errno], name))
        return
    raise Failed("%s%r: got %r, want %s" % (f.__name__, args, got, name))


def user(uid, gid, f, *args, groups=()):
    """f as another user, in a process of its own. An error comes back as one."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(r)
        out = ""
        try:
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            got = f(*args)
            out = "=%r" % (got,) if isinstance(got, (int, str, bytes)) else "="
        except OSError as e:
            out = "!%d" % e.errno
        except BaseException as e:
            out = "?%r" % e
        os.write(w, out.encode())
        os._exit(0)
    os.close(w)
    out = b""
    while chunk := os.read(r, 4096):
        out += chunk
    os.close(r)
    os.waitpid(pid, 0)
    kind, rest = out[:1], out[1:].decode()
    if kind == b"!":
        raise OSError(int(rest), os.strerror(int(rest)))
    if kind == b"?":
        raise Failed(rest)
    return rest


def user_err(name, uid, gid, f, *args, groups=()):
    def as_user(*_):
        return user(uid, gid, f, *args, groups=groups)
    as_user.__name__ = "uid %d: %s" % (uid, f.__name__)
    err(name, as_user, *args)


def put(path, data=b"", mode=0o644):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    os.chmod(path, mode)


def get(path):
    with open(path, "rb") as f:
        return f.read()


def make(kind, path, mode=0o644):
    if kind == "file":
        put(path, b"x", mode)
    elif kind == "dir":
        os.mkdir(path)
        os.chmod(path, mode)
    elif kind == "fifo":
        os.mkfifo(path)
        os.chmod(path, mode)
    elif kind == "sock":
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
        s.close()
        os.chmod(path, mode)
    else:
        os.symlink("target", path)


def m(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def owner(path):
    st = os.lstat(path)
    return st.st_uid, st.st_gid


def tick():
    """Past the grain of the clock of the file system's times."""
    time.sleep(0.012)


def ctime(path):
    return os.lstat(path).st_ctime_ns


def mtime(path):
    return os.lstat(path).st_mtime_ns


def changes(what, f, *args):
    before = {p: (ctime(p), mtime(p)) for p in what}
    tick()
    f(*args)
    for p, times in what.items():
        now = (ctime(p), mtime(p))
        for i, name in enumerate(("ctime", "mtime")):
            if (name in times.split()) != (now[i] > before[p][i]):
                raise Failed("%s%r: %s of %s: %d then %d" % (f.__name__, args, name, p, before[p][i], now[i]))


@check
def chmod_all_modes():
    for kind in TYPES[:4]:
        make(kind, kind)
        for mode in (0, 0o111, 0o444, 0o600, 0o644, 0o755, 0o777, 0o1777, 0o2755, 0o4755, 0o6777, 0o7777):
            os.chmod(kind, mode)
            eq(m(kind), mode, kind)


@check
def chmod_errors():
    put("f")
    err("ENOENT", os.chmod, "no", 0o600)
    err("ENOTDIR", os.chmod, "f/x", 0o600)
    err("ENAMETOOLONG", os.chmod, "n" * 256, 0o600)
    os.symlink("loop", "loop")
    err("ELOOP", os.chmod, "loop", 0o600)
    user_err("EPERM", U, G, os.chmod, "f", 0o777)
    os.chown("f", U, G)
    user(U, G, os.chmod, "f", 0o777)
    user_err("EPERM", V, G, os.chmod, "f", 0o700)
    changes({"f": "ctime"}, os.chmod, "f", 0o640)
    os.symlink("f", "l")
    os.chmod("l", 0o604)
    eq(m("f"), 0o604)


@check
def chmod_setgid_of_other_group():
    put("f")
    os.chown("f", U, W)
    user(U, G, os.chmod, "f", 0o2755)
    eq(m("f"), 0o755)
    user(U, G, os.chmod, "f", 0o2755, groups=[W])
    eq(m("f"), 0o2755)


@check
def chown_by_root():
    for kind in TYPES:
        make(kind, kind)
        for uid, gid in ((123, 456), (65534, 65534), (0, 0), (U, -1), (-1, G)):
            before = owner(kind)
            os.lchown(kind, uid, gid)
            eq(owner(kind), (before[0] if uid < 0 else uid, before[1] if gid < 0 else gid), kind)
    put("t")
    os.symlink("t", "s")
    os.chown("s", 7, 8)
    eq(owner("t"), (7, 8))
    eq(owner("s"), (0, 0))
    changes({"t": "ctime"}, os.chown, "t", 9, 9)


@check
def chown_by_users():
    put("f")
    os.chown("f", U, G)
    user_err("EPERM", U, G, os.chown, "f", V, -1)
    user_err("EPERM", U, G, os.chown, "f", -1, W)
    user(U, G, os.chown, "f", -1, W, groups=[W])
    eq(owner("f"), (U, W))
    user(U, G, os.chown, "f", U, G)
    user_err("EPERM", V, G, os.chown, "f", -1, G)
    err("ENOENT", os.chown, "no", 1, 1)


@check
def chown_ends_setid():
    put("f")
    os.chmod("f", 0o6755)
    os.chown("f", 5, 5)
    eq(m("f"), 0o755)
    os.chown("f", U, G)
    os.chmod("f", 0o6755)
    user(U, G, os.chown, "f", -1, W, groups=[W])
    eq(m("f"), 0o755)
    os.mkdir("d")
    os.chmod("d", 0o6755)
    os.chown("d", 5, 5)
    eq(m("d"), 0o6755)


@check
def write_ends_setid():
    put("f", b"data")
    os.chown("f", U, G)
    os.chmod("f", 0o6777)

    def write(path):
        with open(path, "r+b") as f:
            f.write(b"x")
    user(V, V, write, "f")
    eq(m("f"), 0o777)
    os.chmod("f", 0o4777)
    user(V, V, os.truncate, "f", 1)
    eq(m("f"), 0o777)


@check
def setuid_program():
    shutil.copy("/usr/bin/id", "id")
    os.chown("id", 0, 0)
    os.chmod("id", 0o4755)
    os.chmod(".", 0o755)

    def run():
        r, w = os.pipe()
        if os.fork() == 0:
            os.dup2(w, 1)
            os.execv("./id", ["id", "-u"])
        os.close(w)
        os.wait()
        return os.read(r, 100).decode().strip()
    eq(user(U, G, run), "'0'")
    os.chmod("id", 0o755)
    eq(user(U, G, run), "'%d'" % U)
    os.chown("id", V, V)
    os.chmod("id", 0o4755)
    eq(user(U, G, run), "'%d'" % V)
    os.chmod("id", 0o644)
    user_err("EACCES", U, G, os.execv, "./id", ["id"])


@check
def link_counts():
    put("a", b"x")
    os.link("a", "b")
    os.mkdir("d")
    os.link("b", "d/c")
    eq(os.stat("a").st_nlink, 3)
    eq(os.stat("a").st_ino, os.stat("d/c").st_ino)
    os.unlink("a")
    eq(os.stat("b").st_nlink, 2)
    put("b", b"new")
    eq(get("d/c"), b"new")
    changes({"b": "ctime", ".": "ctime mtime"}, os.link, "b", "e")
    changes({"b": "ctime", ".": "ctime mtime"}, os.unlink, "e")


@check
def link_errors():
    put("a")
    os.mkdir("d")
    for kind in TYPES:
        make(kind, "x" + kind)
        err("EEXIST", os.link, "a", "x" + kind)
    err("ENOENT", os.link, "no", "b")
    err("ENOENT", os.link, "a", "no/b")
    err("ENOTDIR", os.link, "a", "xfile/b")
    err("EPERM", os.link, "d", "e")
    err("ENAMETOOLONG", os.link, "a", "n" * 256)
    os.chmod("d", 0o755)
    os.chmod("a", 0o666)
    user_err("EACCES", U, G, os.link, "a", "d/b")
    os.link("xlink", "ylink", follow_symlinks=False)
    eq(os.lstat("xlink").st_nlink, 2)
    for kind in ("fifo", "sock"):
        os.link("x" + kind, "y" + kind)
        eq(os.lstat("x" + kind).st_nlink, 2)


@check
def mkdir_modes():
    for umask in (0, 0o22, 0o77, 0o777):
        old = os.umask(umask)
        for mode in (0o777, 0o755, 0o151, 0o1777):
            os.mkdir("d", mode)
            eq(m("d"), mode & ~umask, "umask %o, mode %o" % (umask, mode))
            os.rmdir("d")
        os.umask(old)
    before = os.stat(".").st_nlink
    changes({".": "ctime mtime"}, os.mkdir, "d")
    eq(os.stat(".").st_nlink, before + 1)
    eq(os.stat("d").st_nlink, 2)
    eq(os.listdir("d"), [])


@check
def mkdir_errors():
    for kind in TYPES:
        make(kind, kind)
        err("EEXIST", os.mkdir, kind)
    err("ENOENT", os.mkdir, "no/d")
    err("ENOTDIR", os.mkdir, "file/d")
    err("ENAMETOOLONG", os.mkdir, "n" * 256)
    os.chmod("dir", 0o755)
    user_err("EACCES", U, G, os.mkdir, "dir/x")
    os.chown("dir", U, G)
    user(U, G, os.mkdir, "dir/x")
    eq(owner("dir/x"), (U, G))


@check
def setgid_folders():
    os.mkdir("d")
    os.chown("d", 0, W)
    os.chmod("d", 0o2777)
    put("d/f")
    os.mkdir("d/sub")
    eq(owner("d/f"), (0, W))
    eq(owner("d/sub"), (0, W))
    eq(m("d/sub") & 0o2000, 0o2000)
    user(U, G, os.mkdir, "d/his")
    eq(owner("d/his"), (U, W))
    eq(m("d/his") & 0o2000, 0o2000)


@check
def fifos_and_sockets():
    os.mkfifo("p", 0o640)
    eq(stat.S_ISFIFO(os.lstat("p").st_mode), True)
    pid = os.fork()
    if pid == 0:
        fd = os.open("p", os.O_WRONLY)
        os.write(fd, b"through")
        os._exit(0)
    fd = os.open("p", os.O_RDONLY)
    eq(os.read(fd, 100), b"through")
    os.close(fd)
    os.waitpid(pid, 0)
    s = socket.socket(socket.AF_UNIX)
    s.bind("s")
    s.listen()
    c = socket.socket(socket.AF_UNIX)
    c.connect("s")
    a, _ = s.accept()
    c.send(b"hi")
    eq(a.recv(10), b"hi")
    for x in (a, c, s):
        x.close()
    os.rename("s", "t")
    os.unlink("t")
    err("EEXIST", os.mkfifo, "p")


@check
def open_creates():
    for umask in (0, 0o22, 0o77):
        old = os.umask(umask)
        for mode in (0o777, 0o666, 0o444, 0o200, 0, 0o4755):
            fd = os.open("f", os.O_CREAT | os.O_RDWR, mode)
            os.write(fd, b"data")
            eq(os.fstat(fd).st_size, 4)
            os.close(fd)
            eq(m("f"), mode & ~umask, "umask %o, mode %o" % (umask, mode))
            eq(get("f"), b"data")
            os.unlink("f")
        os.umask(old)
    os.chmod(".", 0o777)

    def create(path):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    user(U, G, create, "u")
    eq(owner("u"), (U, G))
    changes({".": "ctime mtime"}, create, "new")


@check
def open_errors():
    for kind in TYPES:
        make(kind, kind)
        err("EEXIST", os.open, kind, os.O_CREAT | os.O_EXCL)
    err("ENOENT", os.open, "no", os.O_RDONLY)
    err("ENOENT", os.open, "no/f", os.O_CREAT)
    err("ENOTDIR", os.open, "file/f", os.O_CREAT)
    err("EISDIR", os.open, "dir", os.O_WRONLY)
    err("EISDIR", os.open, "dir", os.O_CREAT)
    err("ENOTDIR", os.open, "file", os.O_DIRECTORY)
    err("ELOOP", os.open, "link", os.O_NOFOLLOW)
    err("ENOENT", os.open, "link", os.O_RDONLY)
    err("ENXIO", os.open, "fifo", os.O_WRONLY | os.O_NONBLOCK)
    err("ENXIO", os.open, "sock", os.O_RDONLY)
    err("ENAMETOOLONG", os.open, "n" * 256, os.O_CREAT)
    os.close(os.open("link", os.O_CREAT))  # makes its target
    eq(os.path.exists("target"), True)
    os.symlink("b", "a")
    os.symlink("a", "b")
    err("ELOOP", os.open, "a", os.O_RDONLY)


@check
def open_permissions():
    os.chmod(".", 0o755)
    for mode, uid, gid, flags, ok in (
        (0o600, V, V, os.O_RDONLY, False), (0o604, V, V, os.O_RDONLY, True), (0o640, V, G, os.O_RDONLY, True),
        (0o640, V, V, os.O_RDONLY, False), (0o602, V, V, os.O_WRONLY, True), (0o620, V, G, os.O_WRONLY, True),
        (0o044, U, G, os.O_RDONLY, False), (0o404, V, G, os.O_RDONLY, False), (0o200, U, G, os.O_RDWR, False),
        (0o600, U, G, os.O_RDWR, True), (0o400, U, G, os.O_WRONLY, False), (0o606, V, G, os.O_RDWR, False),
    ):
        put("f", b"x", 0o600)
        os.chown("f", U, G)
        os.chmod("f", mode)
        if ok:
            user(uid, gid, os.open, "f", flags)
        else:
            user_err("EACCES", uid, gid, os.open, "f", flags)
        os.close(os.open("f", os.O_RDWR))  # root may always
        os.unlink("f")
    os.mkdir("d", 0o700)
    put("d/f")
    user_err("EACCES", U, G, os.open, "d/f", os.O_RDONLY)
    user_err("EACCES", U, G, os.listdir, "d")
    os.chmod("d", 0o711)
    user(U, G, os.open, "d/f", os.O_RDONLY)
    user_err("EACCES", U, G, os.listdir, "d")
    os.chmod("d", 0o744)
    user_err("EACCES", U, G, os.open, "d/f", os.O_RDONLY)
    user(U, G, os.listdir, "d")


@check
def access_of_root_and_others():
    put("f", b"", 0o644)
    eq(os.access("f", os.R_OK | os.W_OK), True)
    eq(os.access("f", os.X_OK), False)
    os.chmod("f", 0o001)
    eq(os.access("f", os.X_OK), True)
    os.chmod("f", 0)
    eq(os.access("f", os.R_OK | os.W_OK), True)
    eq(user(U, G, os.access, "f", os.R_OK), "False")
    os.mkdir("d", 0)
    eq(os.access("d", os.R_OK | os.W_OK | os.X_OK), True)


@check
def supplementary_groups():
    put("f", b"x", 0o660)
    os.chown("f", 0, W)
    os.chmod(".", 0o755)
    user_err("EACCES", U, G, os.open, "f", os.O_RDWR)
    user(U, G, os.open, "f", os.O_RDWR, groups=[5, W, 6])
    user(U, G, os.open, "f", os.O_RDWR, groups=list(range(2000, 2015)) + [W])


@check
def rename_kinds():
    for a in TYPES:
        for b in TYPES:
            make(a, "a", 0o755)
            make(b, "b", 0o755)
            ino = os.lstat("a").st_ino
            if (a == "dir") == (b == "dir"):
                os.rename("a", "b")
                eq(os.lstat("b").st_ino, ino, a + " over " + b)
                eq(os.path.lexists("a"), False)
            else:
                err("ENOTDIR" if a == "dir" else "EISDIR", os.rename, "a", "b")
            for x in ("a", "b"):
                if os.path.lexists(x):
                    (os.rmdir if os.path.isdir(x) and not os.path.islink(x) else os.unlink)(x)


@check
def rename_errors():
    os.mkdir("d")
    os.mkdir("d/e")
    put("f")
    err("ENOENT", os.rename, "no", "x")
    err("ENOENT", os.rename, "f", "no/x")
    err("ENOTDIR", os.rename, "d", "f/x")
    err("EINVAL", os.rename, "d", "d/e/x")
    err("ENOTEMPTY|EEXIST", os.rename, "d/e", "d")
    os.mkdir("g")
    err("ENOTEMPTY|EEXIST", os.rename, "g", "d")
    err("ENAMETOOLONG", os.rename, "f", "n" * 256)
    err("EBUSY|EINVAL", os.rename, "d/.", "x")
    os.chmod(".", 0o755)
    user_err("EACCES", U, G, os.rename, "f", "x")


@check
def rename_of_links_to_one_file():
    put("a", b"x")
    os.link("a", "b")
    os.rename("a", "b")
    eq(sorted(os.listdir(".")), ["a", "b"])
    os.rename("a", "c")
    eq(sorted(os.listdir(".")), ["b", "c"])


@check
def rename_moves_folders():
    os.makedirs("a/sub/deep")
    os.mkdir("b")
    put("a/sub/deep/f", b"x")
    fd = os.open("a/sub/deep/f", os.O_RDWR)
    na, nb = os.stat("a").st_nlink, os.stat("b").st_nlink
    os.rename("a/sub", "b/sub")
    eq((os.stat("a").st_nlink, os.stat("b").st_nlink), (na - 1, nb + 1))
    os.write(fd, b"yz")
    os.close(fd)
    eq(get("b/sub/deep/f"), b"yz")
    eq(os.stat("b/sub/..").st_ino, os.stat("b").st_ino)
    put("f")
    changes({".": "ctime mtime", "b": "ctime mtime"}, os.rename, "f", "b/f")


@check
def rename_over_open_file():
    put("a", b"old")
    put("b", b"new")
    fd = os.open("a", os.O_RDWR)
    os.rename("b", "a")
    eq(get("a"), b"new")
    eq(os.pread(fd, 10, 0), b"old")
    os.pwrite(fd, b"OLD!", 0)
    eq(os.pread(fd, 10, 0), b"OLD!")
    eq(os.fstat(fd).st_size, 4)
    os.fsync(fd)
    os.close(fd)
    eq(get("a"), b"new")
    eq(os.listdir("."), ["a"])


@check
def sticky_folders():
    os.mkdir("t")
    os.chmod("t", 0o1777)
    put("t/f")
    os.chown("t/f", U, G)
    put("t/own")
    os.chown("t/own", V, V)
    user_err("EPERM|EACCES", V, V, os.unlink, "t/f")
    user_err("EPERM|EACCES", V, V, os.rename, "t/f", "t/g")
    user_err("EPERM|EACCES", V, V, os.rename, "t/own", "t/f")
    user(V, V, os.rename, "t/own", "t/mine")
    user(U, G, os.unlink, "t/f")
    os.mkdir("t/d")
    os.chown("t/d", U, G)
    user_err("EPERM|EACCES", V, V, os.rmdir, "t/d")
    os.chown("t", V, V)
    user(V, V, os.rmdir, "t/d")


@check
def rmdir_errors():
    os.makedirs("d/e")
    put("f")
    os.symlink("d", "l")
    err("ENOTEMPTY|EEXIST", os.rmdir, "d")
    err("ENOTDIR", os.rmdir, "f")
    err("ENOTDIR", os.rmdir, "l")
    err("ENOENT", os.rmdir, "no")
    err("EINVAL", os.rmdir, "d/e/.")
    os.chmod("d", 0o755)
    user_err("EACCES", U, G, os.rmdir, "d/e")
    before = os.stat("d").st_nlink
    changes({"d": "ctime mtime"}, os.rmdir, "d/e")
    eq(os.stat("d").st_nlink, before - 1)


@check
def symlinks():
    for target in ("x", "/", "..", "a/b/c", "n" * 255, "d/" * 2000, "\xfc", "with blank", "x" * 4000):
        os.symlink(target, "l")
        eq(os.readlink("l"), target)
        eq(stat.S_ISLNK(os.lstat("l").st_mode), True)
        eq(os.lstat("l").st_size, len(os.fsencode(target)))
        os.unlink("l")
    for kind in TYPES:
        make(kind, kind)
        err("EEXIST", os.symlink, "x", kind)
    err("ENOENT", os.symlink, "x", "no/l")
    err("ENOENT", os.symlink, "", "l")
    err("ENAMETOOLONG", os.symlink, "x", "n" * 256)
    err("EINVAL", os.readlink, "file")
    changes({".": "ctime mtime"}, os.symlink, "x", "new")


@check
def truncates():
    put("f", b"0123456789")
    os.truncate("f", 4)
    eq(get("f"), b"0123")
    os.truncate("f", 8)
    eq(get("f"), b"0123\0\0\0\0")
    changes({"f": "ctime mtime"}, os.truncate, "f", 2)
    os.mkdir("d")
    err("EISDIR", os.truncate, "d", 0)
    err("ENOENT", os.truncate, "no", 0)
    err("EINVAL", os.truncate, "f", -1)
    os.chmod(".", 0o755)
    user_err("EACCES", U, G, os.truncate, "f", 0)
    fd = os.open("f", os.O_RDWR)
    os.write(fd, b"abcdef")
    os.ftruncate(fd, 3)
    eq(os.fstat(fd).st_size, 3)
    os.ftruncate(fd, 5 << 30)
    eq(os.fstat(fd).st_size, 5 << 30)
    os.pwrite(fd, b"end", (5 << 30) - 3)
    eq(os.pread(fd, 5, (5 << 30) - 4), b"\0end")
    os.close(fd)
    put("f", b"")
    eq(os.stat("f").st_size, 0)


@check
def unlinks():
    for kind in TYPES:
        if kind == "dir":
            continue
        make(kind, kind)
        os.unlink(kind)
        err("ENOENT", os.lstat, kind)
    os.mkdir("d")
    err("EISDIR|EPERM", os.unlink, "d")
    err("ENOENT", os.unlink, "no")
    put("d/f")
    os.chmod("d", 0o755)
    user_err("EACCES", U, G, os.unlink, "d/f")
    put("f")
    os.symlink("f", "l")
    os.unlink("l")
    eq(os.path.exists("f"), True)


@check
def open_unlinked():
    fds = []
    for i in range(20):
        fd = os.open("f%d" % i, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, b"data%d" % i)
        os.unlink("f%d" % i)
        fds.append(fd)
    for i, fd in enumerate(fds):
        eq(os.pread(fd, 100, 0), b"data%d" % i)
        os.pwrite(fd, b"more", 100)
        eq(os.fstat(fd).st_size, 104)
    put("f0", b"another")
    eq(os.pread(fds[0], 5, 0), b"data0")
    for fd in fds:
        os.close(fd)
    eq(os.listdir("."), ["f0"])


@check
def read_only_file_stays_open_for_writing():
    fd = os.open("f", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444)
    os.write(fd, b"one")
    os.fsync(fd)
    os.fchmod(fd, 0)
    os.write(fd, b"two")
    os.ftruncate(fd, 5)
    os.close(fd)
    eq(get("f"), b"onetw")
    eq(m("f"), 0)
    os.chmod(".", 0o777)

    def as_user():
        fd = os.open("u", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o400)
        os.write(fd, b"one")
        os.fsync(fd)
        os.write(fd, b"two")
        os.close(fd)
    user(U, G, as_user)
    eq(get("u"), b"onetwo")


@check
def locked_folders_of_root():
    os.makedirs("d/e")
    put("d/e/f", b"x", 0o400)
    os.chmod("d/e", 0o555)
    os.chmod("d", 0)
    eq(get("d/e/f"), b"x")
    put("d/e/g", b"y")
    with open("d/e/f", "r+b") as f:
        f.write(b"z")
    os.rename("d/e", "e")
    eq((m("d"), m("e"), m("e/f")), (0, 0o555, 0o400))
    shutil.rmtree("e")
    os.rmdir("d")


@check
def times():
    put("f")
    os.utime("f", ns=(1_000_000_001_123_456_789, 1_500_000_000_987_654_321))
    st = os.stat("f")
    eq((st.st_atime_ns, st.st_mtime_ns), (1_000_000_001_123_456_789, 1_500_000_000_987_654_321))
    before = time.time()
    os.utime("f")
    eq(abs(os.stat("f").st_mtime - before) < 5, True)
    os.symlink("f", "l")
    os.utime("l", ns=(5, 7_000_000_000), follow_symlinks=False)
    eq(os.lstat("l").st_mtime, 7)
    eq(abs(os.stat("f").st_mtime - before) < 5, True)
    os.chmod("f", 0o666)
    os.chmod(".", 0o755)
    user(U, G, os.utime, "f")
    user_err("EPERM", U, G, lambda: os.utime("f", ns=(1, 1)))
    os.chmod("f", 0o644)
    user_err("EACCES", U, G, os.utime, "f")
    os.mkdir("d")
    os.utime("d", (1, 2))
    eq(os.stat("d").st_mtime, 2)

    def write():
        with open("f", "ab") as f:
            f.write(b"x")
    changes({"f": "ctime mtime", ".": ""}, write)


@check
def appends():
    a = os.open("f", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    b = os.open("f", os.O_WRONLY | os.O_APPEND)
    for i in range(50):
        os.write(a, b"a")
        os.write(b, b"b")
    os.close(a)
    os.close(b)
    eq(get("f"), b"ab" * 50)


@check
def maps():
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 1 << 20)
    with mmap.mmap(fd, 1 << 20) as shared:
        shared[5000:5005] = b"hello"
        shared[(1 << 20) - 1] = 33
        eq(os.pread(fd, 5, 5000), b"hello")
        os.pwrite(fd, b"WORLD", 6000)
        eq(shared[6000:6005], b"WORLD")
        shared.flush()
    eq(get("f")[5000:5005], b"hello")
    with mmap.mmap(fd, 1 << 20, flags=mmap.MAP_PRIVATE) as private:
        private[0:4] = b"mine"
    eq(os.pread(fd, 4, 0), b"\0\0\0\0")
    os.close(fd)


@check
def sparse():
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    for i in range(5):
        os.pwrite(fd, b"block", i << 28)
    os.fsync(fd)
    st = os.fstat(fd)
    eq(st.st_size, (4 << 28) + 5)
    eq(st.st_blocks * 512 < 1 << 20, True, "%d blocks" % st.st_blocks)
    eq(os.pread(fd, 10, (2 << 28) - 5), b"\0" * 5 + b"block")
    os.close(fd)


@check
def locks():
    put("f")
    a = open("f", "r+")
    fcntl.lockf(a, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def lock():
        with open("f", "r+") as f:
            fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    user_err("EAGAIN|EACCES", 0, 0, lock)
    fcntl.lockf(a, fcntl.LOCK_UN)
    user(0, 0, lock)
    fcntl.flock(a, fcntl.LOCK_EX)

    def flock():
        with open("f", "r+") as f:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    user_err("EAGAIN", 0, 0, flock)
    a.close()


@check
def names():
    odd = [b"n" * 255, "ü€😀".encode(), b"\xff\xfe\x01", b" ", b"-rf", b"a\nb\tc", b"...", b"*?[x]", b"a\\b", b"'\"", b".hidden", b"CON"]
    for name in odd:
        put(name, name)
    eq(sorted(os.listdir(b".")), sorted(odd))
    for name in odd:
        eq(get(name), name)
        os.rename(name, b"x")
        os.rename(b"x", name)
        os.unlink(name)
    err("ENAMETOOLONG", put, b"n" * 256)
    eq(os.statvfs(".").f_namemax, 255)
    put("Case")
    eq(os.path.exists("case"), False)


@check
def deep():
    here = os.getcwd()
    for i in range(60):
        os.mkdir("d" * 100)
        os.chdir("d" * 100)
    put("bottom", b"x")
    eq(get("bottom"), b"x")
    os.chdir(here)
    shutil.rmtree("d" * 100)


@check
def listing_while_removing():
    os.mkdir("d")
    for i in range(1500):
        put("d/%04d" % i)
    with os.scandir("d") as it:
        n = 0
        for e in it:
            os.unlink(e.path)
            n += 1
    eq(n, 1500)
    os.rmdir("d")


@check
def listing_with_hard_links_and_types():
    for kind in TYPES:
        make(kind, kind)
    os.link("file", "file2")
    kinds = {e.name: (e.is_file(follow_symlinks=False), e.is_dir(follow_symlinks=False), e.is_symlink(), e.inode()) for e in os.scandir(".")}
    eq(kinds["file"], kinds["file2"])
    eq((kinds["file"][:3], kinds["dir"][:3], kinds["link"][:3], kinds["fifo"][:3]),
       ((True, False, False), (False, True, False), (False, False, True), (False, False, False)))
    for name, k in kinds.items():
        eq(k[3], os.lstat(name).st_ino, name)


@check
def removed_folder():
    os.mkdir("d")
    here = os.getcwd()
    os.chdir("d")
    os.rmdir("../d")
    try:
        err("ENOENT|ESTALE", os.mkdir, "x")
        err("ENOENT|ESTALE", os.open, "x", os.O_CREAT)
    finally:
        os.chdir(here)


@check
def devices_and_attributes():
    if not NFS:
        return
    err("EPERM", os.mknod, "d", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    err("EPERM", os.mknod, "d", stat.S_IFBLK | 0o600, os.makedev(8, 0))
    put("f")
    err("ENOTSUP", os.setxattr, "f", "user.x", b"1")
    eq(os.listdir("."), ["f"])


@check
def large_reads_and_writes():
    data = os.urandom(1 << 20) * 5 + b"tail"
    put("f", data)
    eq(get("f") == data, True)
    fd = os.open("f", os.O_RDWR)
    for off in (0, 1, 4095, 1 << 20, (5 << 20) - 3):
        eq(os.pread(fd, 70000, off) == data[off:off + 70000], True, "at %d" % off)
    os.pwrite(fd, b"#" * 3000000, 12345)
    os.fdatasync(fd)
    os.close(fd)
    eq(get("f") == data[:12345] + b"#" * 3000000 + data[3012345:], True)


def main():
    os.umask(0o22)
    failed = 0
    for f in CHECKS:
        path = os.path.join(TOP, f.__name__)
        os.mkdir(path)
        os.chmod(path, 0o755)
        os.chdir(path)
        try:
            f()
        except Failed as e:
            failed += 1
            print("FAIL %s: %s" % (f.__name__, e))
        except Exception as e:
            failed += 1
            import traceback
            line = [x.lineno for x in traceback.extract_tb(e.__traceback__) if x.filename == traceback.extract_tb(e.__traceback__)[0].filename]
            print("FAIL %s: %r, lines %s" % (f.__name__, e, line))
        finally:
            os.chdir("/")
            shutil.rmtree(path, ignore_errors=True)
        if os.path.exists(path):
            failed += 1
            print("FAIL %s: its folder cannot be removed" % f.__name__)
    print("%d of %d failed" % (failed, len(CHECKS)))
    sys.exit(1 if failed else 0)


main()
