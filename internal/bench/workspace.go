package bench

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
)

// The folders that files are measured in: the host's, and one on the instance's disk.
const (
	hostFolder = "/workspace/bench"
	diskFolder = "/root/bench"
)

// filing is the program that works on files in a folder, sys.argv[2]. It prints how long
// one file took, in ms, or how many MB a second took. What is read comes from the disk or
// the host, and not from the guest's memory.
const filing = `
import os, shutil, sys, time
do, dir = sys.argv[1:]
files, block, blocks = 100, os.urandom(1 << 20), 24
shutil.rmtree(dir, ignore_errors=True); os.mkdir(dir)
path = lambda i: f'{dir}/{i}'
def forget():
    os.sync(); open('/proc/sys/vm/drop_caches', 'w').write('3')
def create():
    for i in range(files): open(path(i), 'x').close()
def stat():
    for i in range(files): os.stat(path(i))
def write():
    with open(path(0), 'wb', buffering=0) as f:
        for _ in range(blocks): f.write(block)
        os.fsync(f.fileno())
def read():
    with open(path(0), 'rb', buffering=0) as f:
        while f.read(1 << 20): pass
if do == 'stat': create(); forget()
if do == 'read': write(); forget()
begin = time.perf_counter()
{'create': create, 'stat': stat, 'write': write, 'read': read}[do]()
took = time.perf_counter() - begin
print(1000 * took / files if do in ('create', 'stat') else blocks * len(block) / 1e6 / took)
shutil.rmtree(dir)
`

// workspaceCreate measures making an empty file in the workspace, beside one on the
// instance's disk. The others are to it as their names say.
func workspaceCreate(ctx context.Context, w *world) (*sampler, error) { return files(ctx, w, "create") }

func workspaceStat(ctx context.Context, w *world) (*sampler, error) { return files(ctx, w, "stat") }

func workspaceWrite(ctx context.Context, w *world) (*sampler, error) { return files(ctx, w, "write") }

func workspaceRead(ctx context.Context, w *world) (*sampler, error) { return files(ctx, w, "read") }

func files(ctx context.Context, w *world, what string) (*sampler, error) {
	s, err := w.serve(ctx)
	if err != nil {
		return nil, err
	}
	return &sampler{figure: filed(s.output, what, hostFolder), floor: filed(s.output, what, diskFolder)}, nil
}

// beside9P returns the measurement of the same in the workspace, beside a folder that QEMU
// itself shares with another machine of that size.
func beside9P(what string) func(context.Context, *world) (*sampler, error) {
	return func(ctx context.Context, w *world) (*sampler, error) {
		p, err := w.sharing(ctx) // first: it may lack
		if err != nil {
			return nil, err
		}
		s, err := w.serve(ctx)
		if err != nil {
			return nil, err
		}
		return &sampler{figure: filed(s.output, what, hostFolder), floor: filed(p.output, what, ninepFolder)}, nil
	}
}

// filed takes a sample of filing, which run runs somewhere.
func filed(run func(context.Context, ...string) ([]byte, error), what, folder string) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		out, err := run(ctx, "python3", "-c", filing, what, folder)
		if err != nil {
			return 0, err
		}
		return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	}
}

// output runs a command in the server's instance, and returns what it printed.
func (s *server) output(ctx context.Context, command ...string) ([]byte, error) {
	att, err := s.client.Exec(ctx, s.name, api.ExecRequest{Command: command})
	if err != nil {
		return nil, err
	}
	var out, errs bytes.Buffer
	status, err := att.Stream(ctx, client.Streams{Stdout: &out, Stderr: &errs})
	if err == nil && status != 0 {
		err = fmt.Errorf("%s ended with status %d: %s", command[0], status, errs.Bytes())
	}
	return out.Bytes(), err
}
