package qemu

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/size"
)

// What QEMU answers to blockdev-set-active, in its known forms.
var activations = map[string]struct {
	answer string
	fails  bool
}{
	"7.2.22": {`"error": {"class": "CommandNotFound", "desc": "The command blockdev-set-active has not been found"}`, false},
	"10.0.2": {`"return": {}`, false},
	// On any version: what cannot be activated cannot be used.
	"a locked disk": {`"error": {"class": "GenericError", "desc": "Failed to get \"write\" lock"}`, true},
}

// TestDisksAreActivated: QEMU is asked whether it has a command; its version says nothing.
func TestDisksAreActivated(t *testing.T) {
	for version, test := range activations {
		t.Run(version, func(t *testing.T) {
			var asked []string
			m := &Machine{mon: openQMP(t, func(command string, id uint64) string {
				asked = append(asked, command)
				if command != "blockdev-set-active" {
					return fmt.Sprintf(`{"return": {}, "id": %d}`, id)
				}
				return fmt.Sprintf(`{%s, "id": %d}`, test.answer, id)
			})}
			if err := m.activateDisks(context.Background()); (err != nil) != test.fails {
				t.Error(err)
			}
			if all := strings.Join(asked, " "); !strings.HasSuffix(all, "blockdev-set-active") {
				t.Errorf("asked: %s", all)
			}
		})
	}
}

// The beginnings of states with memory, as recorded: up to the first page.
var heads = map[string]string{
	"7.2.22": "QEVM\x00\x00\x00\x03\a\x00\x00\x00\amicrovm\x01\x00\x00\x00\x02\x03ram\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\b\x010\x04\x03ram\x00\x00\x00\x00\b\x00\x00\x00\x14/rom@etc/acpi/tables\x00\x00\x00\x00\x00\x00\x10\x00\apc.bios\x00\x00\x00\x00\x00\x01\x00\x00\x15/rom@etc/table-loader\x00\x00\x00\x00\x00\x00\x10\x00\x12/rom@etc/acpi/rsdp\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x10~\x00\x00\x00\x02\x02\x00\x00\x00\x02",
	"10.0.2": "QEVM\x00\x00\x00\x03\a\x00\x00\x00\amicrovm\x01\x00\x00\x00\x01\x03ram\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\b\x010\x04\x03ram\x00\x00\x00\x00\b\x00\x00\x00\x14/rom@etc/acpi/tables\x00\x00\x00\x00\x00\x00\x10\x00\apc.bios\x00\x00\x00\x00\x00\x01\x00\x00\x15/rom@etc/table-loader\x00\x00\x00\x00\x00\x00\x10\x00\x12/rom@etc/acpi/rsdp\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x10~\x00\x00\x00\x01\x02\x00\x00\x00\x01",
}

// TestSplitOfVersions: the heads are understood, and a command between sections of 10.0 is none of memory.
func TestSplitOfVersions(t *testing.T) {
	for version, head := range heads {
		var f stream
		f.WriteString(head)
		id := head[len(head)-4:]
		f.page(0x3000, "ram", 5)
		f.word(pagesEnd)
		f.WriteString("\x7e" + id + "\x08\x00\x0b\x00\x00\x03" + id)
		f.word(pagesEnd)
		f.WriteString("\x7e" + id + "\x04the devices")
		memory := make(guestMemory, 128*size.MiB)
		s := newSplit(&f, memory, int64(len(memory)))
		var rest strings.Builder
		buf := make([]byte, 512)
		for {
			n, err := s.Read(buf)
			rest.Write(buf[:n])
			if err != nil {
				break
			}
		}
		if !s.apart() || memory[0x3000] != 5 || !strings.HasPrefix(rest.String(), head) || !strings.HasSuffix(rest.String(), "the devices") {
			t.Errorf("%s: apart %v, %d bytes left", version, s.apart(), rest.Len())
		}
	}
}
