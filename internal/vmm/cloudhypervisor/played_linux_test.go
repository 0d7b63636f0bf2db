package cloudhypervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/vmm/vmmtest"
)

// The test binary plays Cloud Hypervisor when it is started like it: it checks each
// request against the published document, and plays the states of a VM, whose guest is
// the suite's. A request that is not in order ends it, and its last words say why.

// playedVersion is what the player says that it is.
const playedVersion = "v53.0"

// play is the life of a player.
func play(args []string) int {
	if args[0] == "--version" {
		fmt.Println("cloud-hypervisor " + playedVersion)
		return 0
	}
	if err := newPlayer(args).run(); err != nil {
		fmt.Fprintln(os.Stderr, "the request is not in order:", err)
		return 3
	}
	return 0
}

type player struct {
	args   []string
	schema *schema
	events *os.File
	failed chan error

	mu     sync.Mutex
	state  string // of the VM, "" for none
	config vmConfig
	memory *os.File
	sizes  map[string]int64 // of disks
	guest  *playedGuest
}

func newPlayer(args []string) *player { return &player{args: args, failed: make(chan error, 1)} }

// descriptor returns the value fd=N of an argument.
func (p *player) descriptor(name string) (*os.File, error) {
	for i, a := range p.args[:len(p.args)-1] {
		if a == name {
			fd, err := strconv.Atoi(strings.TrimPrefix(p.args[i+1], "fd="))
			return os.NewFile(uintptr(fd), name), err
		}
	}
	return nil, fmt.Errorf("no %s in %q", name, p.args)
}

func (p *player) run() error {
	var err error
	if p.schema, err = readSchema(); err != nil {
		return err
	}
	socket, err := p.descriptor("--api-socket")
	if err != nil {
		return err
	}
	if p.events, err = p.descriptor("--event-monitor"); err != nil {
		return err
	}
	l, err := net.FileListener(socket)
	if err != nil {
		return err
	}
	go func() { p.failed <- http.Serve(l, http.HandlerFunc(p.answer)) }()
	return <-p.failed
}

// refuse is what the VMM says to a request that it does not perform.
type refuse []string

func (r refuse) Error() string { return strings.Join(r, ": ") }

func (p *player) answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	success, err := p.schema.check(r.Method, r.URL.Path, body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		p.failed <- err
		return
	}
	p.mu.Lock()
	said, err := p.perform(strings.TrimPrefix(r.URL.Path, "/api/v1/"), body)
	p.mu.Unlock()
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		said = append(refuse{"Error from API"}, err.Error())
	} else {
		w.WriteHeader(success)
	}
	if said != nil {
		_ = json.NewEncoder(w).Encode(said) // who does not read it does without
	}
	if r.URL.Path == "/api/v1/vmm.shutdown" {
		p.end()
	}
}

// end is an end in good order.
func (p *player) end() {
	p.tell("vmm", "shutdown")
	os.Exit(0)
}

func (p *player) tell(source, event string) {
	_, _ = fmt.Fprintf(p.events, "{\n  \"timestamp\": {\n    \"secs\": 1,\n    \"nanos\": 2\n  },\n  \"source\": %q,\n  \"event\": %q,\n  \"properties\": null\n}\n\n", source, event)
}

// perform does what a request asks for. The caller holds mu.
func (p *player) perform(what string, body []byte) (any, error) {
	from := map[string]string{"vm.boot": stateCreated, "vm.pause": stateRunning, "vm.resume": statePaused, "vm.snapshot": statePaused, "vm.create": "", "vm.restore": ""}
	if want, ok := from[what]; ok && want != p.state {
		return nil, refuse{"the VM is " + p.state}
	}
	switch what {
	case "vmm.ping":
		return pingResponse{Version: playedVersion, PID: os.Getpid()}, nil
	case "vm.info":
		if p.state == "" {
			return nil, refuse{"there is no VM"}
		}
		return map[string]any{"config": p.config, "state": p.state}, nil
	case "vm.create":
		return nil, errors.Join(json.Unmarshal(body, &p.config), p.create())
	case "vm.boot":
		return nil, p.boot()
	case "vm.pause":
		p.state = statePaused
		return nil, p.guest.pause(p.memory)
	case "vm.resume":
		p.state = stateRunning
		p.guest.resume()
	case "vm.snapshot":
		var c snapshotConfig
		return nil, errors.Join(json.Unmarshal(body, &c), p.snapshot(strings.TrimPrefix(c.Destination, "file://")))
	case "vm.restore":
		var c restoreConfig
		return nil, errors.Join(json.Unmarshal(body, &c), p.restore(strings.TrimPrefix(c.Source, "file://")))
	case "vm.resize-disk":
		var c resizeDisk
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, err
		}
		p.sizes[c.ID] = c.Size
	}
	return nil, nil
}

// create opens all that a configuration names, as the VMM would.
func (p *player) create() error {
	if zones := p.config.Memory.Zones; len(zones) != 1 || p.config.Memory.Size != 0 {
		return refuse{"memory"}
	}
	zone, flags := p.config.Memory.Zones[0], os.O_RDONLY
	if zone.Shared {
		flags = os.O_RDWR
	}
	var err error
	if p.memory, err = os.OpenFile(zone.File, flags, 0); err != nil {
		return err
	}
	if fi, err := p.memory.Stat(); err != nil || fi.Size() != zone.Size {
		return fmt.Errorf("memory of %d bytes, not %d: %w", fi.Size(), zone.Size, err)
	}
	p.sizes = map[string]int64{}
	for _, d := range p.config.Disks {
		flags := os.O_RDWR
		if d.ReadOnly {
			flags = os.O_RDONLY
		}
		f, err := os.OpenFile(d.Path, flags, 0)
		if err != nil {
			return err
		}
		fi, err := f.Stat()
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		p.sizes[d.ID] = fi.Size()
	}
	p.state = stateCreated
	return nil
}

func (p *player) boot() error {
	for _, path := range []string{p.config.Payload.Kernel, p.config.Payload.Initramfs} {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	if strings.Contains(p.config.Payload.Cmdline, "refuse-to-boot") {
		return refuse{"Cannot set the image lock"}
	}
	p.state = stateRunning
	return p.begin(strings.Contains(p.config.Payload.Cmdline, "aegis.card="))
}

// begin gives the VM its guest.
func (p *player) begin(card bool) error {
	g := newPlayedGuest(p, card)
	if err := g.listen(p.config.Vsock.Socket); err != nil {
		return err
	}
	p.guest = g
	_, _ = fmt.Println("guest is up") // who does not read it does without
	return nil
}

// playedState is what a state says.
type playedState struct {
	Card  bool
	Sizes map[string]int64
	Dump  bool
	When  time.Time // no two saves are alike
}

func (p *player) snapshot(dir string) error {
	zone := p.config.Memory.Zones[0]
	var st unix.Stat_t
	if err := unix.Fstat(int(p.memory.Fd()), &st); err != nil {
		return err
	}
	state := playedState{Card: p.guest.card, Sizes: p.sizes, Dump: !zone.Shared || st.Nlink == 0, When: time.Now()}
	if state.Dump {
		if err := p.dump(filepath.Join(dir, dumpFile)); err != nil {
			return err
		}
	}
	// A state as upstream's: what was dumped stands in a text within it.
	ranges := noRanges
	if state.Dump {
		ranges = fmt.Sprintf(`{"data":[{"gpa":0,"length":%d}]}`, zone.Size)
	}
	inner := map[string]any{innerState: fmt.Sprintf(`{%q:%s}`, innerRanges, ranges)}
	whole := map[string]any{"played": state, "snapshots": map[string]any{"memory-manager": map[string]any{"snapshot_data": inner}}}
	for name, v := range map[string]any{stateFile: whole, configFile: p.config} {
		b, err := json.Marshal(v)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dump writes the memory as its guest has it.
func (p *player) dump(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, io.NewSectionReader(p.memory, 0, p.config.Memory.Zones[0].Size))
	if err == nil {
		_, err = f.WriteAt(p.guest.frozen, 0)
	}
	return errors.Join(err, f.Close())
}

func (p *player) restore(dir string) error {
	var whole struct{ Played playedState }
	for name, v := range map[string]any{stateFile: &whole, configFile: &p.config} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil && name == stateFile && strings.Contains(string(b), `\"gpa\"`) {
			_, err = os.Stat(filepath.Join(dir, dumpFile))
		}
		if err == nil && name == configFile {
			err = p.schema.checkJSON("VmConfig", b)
		}
		if err == nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			return err
		}
	}
	state := whole.Played
	if err := p.create(); err != nil {
		return err
	}
	maps.Copy(p.sizes, state.Sizes)
	if err := p.begin(state.Card); err != nil {
		return err
	}
	p.state = statePaused
	return p.guest.load(p.memory)
}

// disk is a raw disk of the guest's.
type playedDisk struct {
	*os.File
	size int64
}

func (d playedDisk) Seek(int64, int) (int64, error) { return d.size, nil }

func (p *player) openDisk(name string) (vmmtest.Disk, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.config.Disks {
		if d.Serial == name && d.ImageType == "Raw" {
			f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
			return playedDisk{f, p.sizes[name]}, err
		}
	}
	return nil, fmt.Errorf("no disk %s", name)
}

// order is what the guest does at the suite's word.
func (p *player) order(w vmmtest.Word) {
	switch w {
	case vmmtest.PowerOff:
		_, _ = fmt.Println("reboot: Power down")
		p.end()
	case vmmtest.Panic:
		_, _ = fmt.Println("Kernel panic - not syncing: told to die")
		p.tell("vm", "rebooting")
	case vmmtest.Reboot:
		_, _ = fmt.Println("reboot: Restarting system")
		p.tell("vm", "rebooting")
	case vmmtest.Flood:
		for line := []byte(strings.Repeat("flood ", 20) + "\n"); ; <-time.After(10 * time.Microsecond) {
			_, _ = os.Stdout.Write(line) // a pipe that is full drops it
		}
	}
}
