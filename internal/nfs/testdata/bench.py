"""Times of file operations in the folder argv[1]: one JSON object, milliseconds an operation and MB/s."""
import json, os, sys, time

def timed(n, f):
    begun = time.perf_counter()
    for i in range(n):
        f(i)
    return round((time.perf_counter() - begun) * 1000 / n, 3)

def cold():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")

top, n, mb = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
d = os.path.join(top, "bench")
os.mkdir(d)
name = lambda i: os.path.join(d, "file-%05d" % i)

def create(i):
    with open(name(i), "wb") as f:
        f.write(b"x" * 200)

def read(i):
    with open(name(i), "rb") as f:
        f.read()

out = {"create": timed(n, create)}
cold()
out["list"] = timed(1, lambda i: os.listdir(d))
out["stat"] = timed(n, lambda i: os.stat(name(i)))
cold()
out["open_read"] = timed(n, read)
out["rename"] = timed(n, lambda i: os.rename(name(i), name(i) + "x"))
out["rm"] = timed(n, lambda i: os.unlink(name(i) + "x"))
out["mkdir"] = timed(n // 4, lambda i: os.mkdir(name(i)))
out["rmdir"] = timed(n // 4, lambda i: os.rmdir(name(i)))

big, block = os.path.join(d, "big"), b"y" * (1 << 20)
begun = time.perf_counter()
with open(big, "wb") as f:
    for _ in range(mb):
        f.write(block)
    os.fsync(f.fileno())
out["write_mb_s"] = round(mb / (time.perf_counter() - begun), 1)
cold()
begun = time.perf_counter()
with open(big, "rb") as f:
    while f.read(1 << 20):
        pass
out["read_mb_s"] = round(mb / (time.perf_counter() - begun), 1)
os.unlink(big)
os.rmdir(d)
print(json.dumps(out))
