package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Where things are in the lab. The payload is a disk; it is copied to the machine's own, on
// which tests make their homes of hard links. The share has what must outlive the machine.
const (
	share = "/workspace"
	lab   = "/lab"

	payloadSerial = "payload"
	payloadAt     = "/payload"
)

// Names in the share.
const (
	planName = "plan.json"
	outName  = "out" // a folder with what each job printed, and how it ended
)

// jobGrace is what a job gets to end by itself at its timeout, which package testing minds.
const jobGrace = 30 * time.Second

func runInside(ctx context.Context) error {
	var p plan
	b, err := os.ReadFile(filepath.Join(share, planName))
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	if err := prepare(ctx); err != nil {
		return err
	}
	if err := report(ctx); err != nil {
		return err
	}
	for _, j := range p.Jobs {
		begin := time.Now()
		say("== %v\n", &j)
		if err := j.run(ctx); err != nil {
			return err
		}
		say("== %v took %v\n", &j, time.Since(begin).Round(time.Second))
	}
	return nil
}

// prepare makes the lab a host as those are that tests know.
func prepare(ctx context.Context) error {
	begin := time.Now()
	device, err := payloadDevice()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(payloadAt, 0o755); err != nil { //nolint:gosec // of no use to anybody else
		return err
	}
	for _, c := range [][]string{{"mount", "-o", "ro", device, payloadAt}, {"cp", "-a", "--sparse=always", payloadAt, lab}, {"umount", payloadAt}} {
		if out, err := exec.CommandContext(ctx, c[0], c[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(c, " "), err, out)
		}
	}
	if err := installLibraries(ctx); err != nil {
		return err
	}
	say("the payload is in the lab after %v\n", time.Since(begin).Round(100*time.Millisecond))
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Symlink(self, filepath.Join(lab, "built", goName)); err != nil {
		return err
	}
	// As udev does it; without it the device is root's alone, and VMMs are not root.
	err = errors.Join(os.Chown("/dev/kvm", 0, kvmGroup), os.Chmod("/dev/kvm", 0o660)) //nolint:gosec // it is for a group
	if err != nil {
		return fmt.Errorf("the lab has no KVM: %w", err)
	}
	return nil
}

// installLibraries puts libraries that the lab was given where the linker finds them, and they each
// other.
func installLibraries(ctx context.Context) error {
	libraries, err := filepath.Glob(filepath.Join(lab, "lib", "*.so*"))
	if err != nil || len(libraries) == 0 {
		return err
	}
	for _, c := range [][]string{append(append([]string{"cp", "-a"}, libraries...), "/usr/local/lib"), {"ldconfig"}} {
		if out, err := exec.CommandContext(ctx, c[0], c[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(c, " "), err, out)
		}
	}
	return nil
}

// payloadDevice finds the payload's disk: disks are told apart by their serial numbers.
func payloadDevice() (string, error) {
	files, err := filepath.Glob("/sys/block/*/serial")
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(b)) == payloadSerial {
			return filepath.Join("/dev", filepath.Base(filepath.Dir(f))), nil
		}
	}
	return "", errors.New("the lab has no disk with the payload")
}

// kvmGroup is the group of /dev/kvm, whichever number that has.
const kvmGroup = 997

// report tells what the lab is made of, and refuses one without working KVM: tests in it would
// pass under emulation.
func report(ctx context.Context) error {
	for _, command := range []string{
		"uname -sr", "cat /etc/debian_version", "nproc", "grep -m1 'model name' /proc/cpuinfo", "qemu-system-x86_64 --version | head -1",
		"dmesg | grep -i 'kvm' || true",
	} {
		out, err := exec.CommandContext(ctx, "sh", "-c", command).CombinedOutput()
		say("%s: %s", command, out)
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
	}
	begin := time.Now()
	cmd := exec.CommandContext(ctx, filepath.Join(lab, "bin", "aegis"), "doctor")
	cmd.Env = append(environment(), "AEGIS_VMM=qemu", "AEGIS_HOME="+filepath.Join(lab, "home"))
	out, err := cmd.CombinedOutput()
	say("aegis doctor, after %v:\n%s", time.Since(begin).Round(time.Millisecond), out)
	if err == nil && !bytes.Contains(out, []byte("kvm, hardware")) {
		err = errors.New("machines do not run on KVM in the lab")
	}
	return err
}

// environment is that of the lab's programs.
func environment() []string {
	env := os.Environ()
	if libkrun := filepath.Join(lab, "lib", "libkrun.so.1"); exists(libkrun) {
		env = append(env, "AEGIS_LIBKRUN="+libkrun)
	}
	return append(env,
		"PATH="+strings.Join([]string{filepath.Join(lab, "built"), filepath.Join(lab, "lib"), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, ":"),
		"HOME=/root", "TMPDIR=/var/tmp",
		"AEGIS_REQUIRE_VM=1", "AEGIS_TEST_HOME="+filepath.Join(lab, "home"), "AEGIS_TEST_BIN="+filepath.Join(lab, "bin"),
		"AEGIS_TEST_ACCEL=kvm",
	)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// run runs a job to its end or its timeout, and leaves what it printed and how it ended.
func (j *job) run(ctx context.Context) error {
	log, err := os.Create(filepath.Join(share, outName, j.log()))
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // written as it comes
	ctx, cancel := context.WithTimeoutCause(ctx, j.Timeout+jobGrace, errors.New("it hangs"))
	defer cancel()
	dir := filepath.Join(lab, "tests", filepath.Base(j.Package))
	args := []string{"-test.v", "-test.timeout", j.Timeout.String(), "-test.run", j.pattern()}
	if j.Skip != "" {
		args = append(args, "-test.skip", j.Skip)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, testName), args...)
	cmd.Dir, cmd.Env = dir, append(environment(), "AEGIS_TEST_VMM="+j.Driver)
	cmd.WaitDelay = jobGrace // children may hold its output open
	out, feed := io.Pipe()
	cmd.Stdout, cmd.Stderr = io.MultiWriter(log, feed), log
	read := make(chan error, 1)
	go func() {
		read <- readOutcomes(j.String(), out, func(o outcome) {
			say("%-10s %-50s %v\n", o.Result, o.Test, o.Took.Round(10*time.Millisecond))
		})
		_, _ = io.Copy(io.Discard, out) // the job goes on where a line was too long
	}()
	ran := cmd.Run()
	_ = feed.Close() // never fails
	if err := <-read; err != nil {
		return err
	}
	ended := "" // well
	if ran != nil {
		ended = ran.Error()
	}
	return os.WriteFile(filepath.Join(share, outName, j.end()), []byte(ended), 0o600)
}
