//go:build integration

package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestHello(t *testing.T) {
	h := newHost(t)
	if out := h.run("echo", "hello from aegisvm"); out != "hello from aegisvm\n" {
		t.Errorf("stdout = %q", out)
	}
	if left := h.instances(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestStatuses(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		name   string
		args   []string
		status int
		stderr string // a part of it
	}{
		{"the program's own", []string{"run", "--", "sh", "-c", "exit 7"}, 7, ""},
		{"a signal", []string{"run", "--", "sh", "-c", "kill -TERM $$"}, 143, ""},
		{"no such command", []string{"run", "--", "no-such-command"}, 127, "no-such-command"},
		{"not executable", []string{"run", "--", "/etc/passwd"}, 126, "/etc/passwd"},
		{"unknown flag", []string{"run", "--no-such-flag", "--", "true"}, 2, "no-such-flag"},
		{"no command", []string{"run"}, 2, "command"},
		{"little memory", []string{"run", "--memory", "1M", "--", "true"}, 2, "memory"},
		{"no such user", []string{"run", "--user", "nosuchuser", "--", "true"}, 125, "nosuchuser"},
		{"no such folder", []string{"run", "--workdir", "/no/such", "--", "true"}, 125, "/no/such"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := h.try(c.args...)
			if r.status != c.status || !strings.Contains(r.stderr, c.stderr) {
				t.Errorf("status %d, stderr %q; want %d, %q", r.status, r.stderr, c.status, c.stderr)
			}
			if left := h.instances(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// userland is what programs expect of an ordinary Linux. Each line is a check of
// its own in one VM, so that a failure names it.
const userland = `
check() { if eval "$2" >/tmp/out 2>&1; then echo "ok $1"; else echo "FAILED $1: $(cat /tmp/out)"; fi; }
check 'python3'               '[ "$(python3 -c "print(1)")" = 1 ]'
check 'bash'                  'bash -c "[[ x == x ]]"'
check 'apt-get'               'apt-get --version'
check 'git'                   'git --version'
check 'curl'                  'curl --version'
check '/tmp is 1777'          '[ "$(stat -c %a /tmp)" = 1777 ]'
check '/dev/shm'              'echo x > /dev/shm/x && mountpoint -q /dev/shm'
check '/dev/pts'              'mountpoint -q /dev/pts && python3 -c "import os; os.openpty()"'
check '/proc/self/fd'         '[ -e /proc/self/fd/0 ] && [ -e /dev/stdin ] && [ -e /dev/fd/1 ]'
check '/dev/null, zero, random' 'head -c 1 /dev/zero > /dev/null && head -c 1 /dev/urandom > /dev/full 2>/dev/null || true; [ -c /dev/urandom ]'
check '/sys'                  '[ -d /sys/kernel ]'
check '/run is writable'      'touch /run/x'
check 'setuid'                'cp /usr/bin/id /tmp/sid && chmod 4755 /tmp/sid && [ "$(stat -c %a /usr/bin/su)" = 4755 ] && python3 -c "import os,subprocess; os.setuid(65534); assert subprocess.check_output([\"/tmp/sid\",\"-u\"]).strip()==b\"0\""'
check '64 processes'          'for i in $(seq 64); do (sleep 0.2; echo $i) & done | wc -l | grep -qx 64'
check 'hostname'              '[ "$(hostname)" = "$(cat /etc/hostname)" ] && getent hosts "$(hostname)"'
check 'machine-id'            'grep -qE "^[0-9a-f]{32}$" /etc/machine-id'
check 'boot id'               'grep -qE "^[0-9a-f-]{36}$" /proc/sys/kernel/random/boot_id'
check 'loopback'              'python3 -c "import socket; s=socket.create_server((\"127.0.0.1\",0)); socket.create_connection(s.getsockname())"'
check 'eth0'                  'ip -4 addr show eth0 | grep -q 192.168.127.2/24 && ip route | grep -q "default via 192.168.127.1"'
check 'clock'                 '[ "$(date +%s)" -ge "$HOST_TIME" ] && [ "$(date +%s)" -le "$((HOST_TIME+60))" ]'
check 'root is writable'      'touch /usr/x && rm /usr/bin/git && hash -r && ! command -v git'
check '8 GB disk'             '[ "$(df -m --output=size / | tail -1)" -gt 7000 ]'
check 'no zombies'            'sh -c "(sleep 0.1 & exec true) & wait"; sleep 0.3; ! ps -eo stat | grep -q Z'
check 'HOME and PATH'         '[ "$HOME" = /root ] && command -v ls'
check 'stdin is empty'        '[ -z "$(cat)" ]'
check 'PID 1 is not mine'     '[ $$ -ne 1 ]'
check 'cgroup'                'grep -q "^0::/" /proc/self/cgroup'
`

func TestUserland(t *testing.T) {
	h := newHost(t)
	cmd := h.aegis("run", "--env", "HOST_TIME", "--", "bash", "-c", userland)
	cmd.Env = append(cmd.Env, "HOST_TIME="+strconv.FormatInt(time.Now().Unix(), 10))
	r := finish(t, cmd)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	for _, line := range lines {
		if !strings.HasPrefix(line, "ok ") {
			t.Error(line)
		}
	}
	if want := strings.Count(userland, "\ncheck '"); len(lines) != want || r.status != 0 {
		t.Errorf("%d of %d checks, status %d\n%s", len(lines), want, r.status, r.stderr)
	}
}

func TestOptions(t *testing.T) {
	h := newHost(t)
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("# comment\nFROM_FILE=a b=c\n\nBOTH=file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := h.try("run", "--env-file", file, "--env", "BOTH=flag", "--workdir", "/usr/share", "--user", "nobody:4711",
		"--memory", "1G", "--cpus", "2", "--name", "box", "--",
		"sh", "-c", `echo "$FROM_FILE|$BOTH|$(pwd)|$(id -un):$(id -g)|$(nproc)|$(hostname)"; awk '/MemTotal/{print ($2 > 900000)}' /proc/meminfo`)
	if want := "a b=c|flag|/usr/share|nobody:4711|2|box\n1\n"; r.stdout != want {
		t.Errorf("stdout = %q, want %q\n%s", r.stdout, want, r.stderr)
	}
}
