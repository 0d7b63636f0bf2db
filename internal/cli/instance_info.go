package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/size"
)

type instanceInfoOptions struct {
	app  *app
	json bool
}

func newInstanceInfo(a *app) *cobra.Command {
	o := &instanceInfoOptions{app: a}
	cmd := &cobra.Command{
		Use:   "info [--json] X",
		Short: "tell all about an instance",
		Long: `Tell all about an instance: its state and, where it is stopped, why; what it is made of and
what it takes of this host now; what holds it awake; and how well it is isolated.`,
		Example: `  aegis instance info web
  aegis instance info web --json | jq .memory_used`,
		Args:              oneRef,
		ValidArgsFunction: a.completeRef,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *instanceInfoOptions) run(ctx context.Context, ref string) error {
	info, err := o.app.client().Info(ctx, ref)
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(info)
	}
	return o.app.print("%s", infoText(info, time.Now()))
}

func infoText(i api.InstanceInfo, now time.Time) string {
	when := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return fmt.Sprintf("%s, %s ago", t.Local().Format(time.DateTime), spanText(now.Sub(*t)))
	}
	lines := [][2]string{
		{"id", i.ID},
		{"handle", i.Handle},
		{"state", stateOf(i.Instance) + hibernated(i)},
		{"why", i.Why},
		{"trouble", i.Trouble},
		{"parent", i.ParentID},
		{"command", commandText(i.Command)},
		{"image", i.ImageRef},
		{"kit", kitText(i)},
		{"may", rightsText(i.Capabilities)},
		{"workspace", workspaceText(i)},
		{"secrets", strings.Join(i.SecretKeys, ", ")},
		{"created", when(&i.CreatedAt)},
		{"active", when(i.LastActiveAt)},
		{"stopped", when(i.StoppedAt)},
		{"pause after", pauseText(i.PauseAfter)},
		{"stop after", pauseText(i.StopAfter)},
		{"memory", fmt.Sprintf("%v, %v in use", size.Bytes(i.MemoryMB)*size.MiB, roundMB(i.MemoryUsed))},
		{"cpus", strconv.Itoa(i.VCPUs)},
		{"disk", fmt.Sprintf("%v, %v in use", size.Bytes(i.DiskMB)*size.MiB, roundMB(i.DiskUsed))},
		{"isolation", i.Isolation + ", " + i.Driver},
	}
	for _, m := range i.Mounts {
		lines = append(lines, [2]string{"mount", m.Source + " on " + m.Target + readOnlyText(m.ReadOnly)})
	}
	for _, e := range i.Endpoints {
		lines = append(lines, [2]string{"port", fmt.Sprintf("%d at %s", e.GuestPort, e.URL())})
	}
	if i.Egress != "public" || len(i.AllowHosts) > 0 {
		lines = append(lines, [2]string{"egress", strings.Join(append([]string{i.Egress}, i.AllowHosts...), ", ")})
	}
	if t := i.Traffic; t != (api.Traffic{}) {
		lines = append(lines, [2]string{"network", trafficText(t)})
	}
	for _, d := range i.Denials {
		lines = append(lines, [2]string{"denied", d.Text + ", " + spanText(now.Sub(d.TS)) + " ago"})
	}
	if i.ActiveConnections > 0 {
		lines = append(lines, [2]string{"connections", strconv.Itoa(i.ActiveConnections)})
	}
	for _, h := range i.Holds {
		lines = append(lines, [2]string{"awake for", h.Owner + ", since " + spanText(now.Sub(h.Since))})
	}
	if i.Busy != "" {
		lines = append(lines, [2]string{"awake for", i.Busy})
	}
	return facts(lines)
}

func kitText(i api.InstanceInfo) string {
	text := strings.TrimSpace(i.Kit + " " + i.KitVersion)
	if i.GatewayRunning {
		text += ", its programs run beside it"
	}
	return text
}

// rightsText is what an instance may ask of the host, "" for nothing.
func rightsText(c *api.Capabilities) string {
	if c == nil {
		return ""
	}
	var rights []string
	say := func(holds bool, format string, args ...any) {
		if holds {
			rights = append(rights, fmt.Sprintf(format, args...))
		}
	}
	if c.Spawn {
		say(true, "start %d children, %d generations deep", c.MaxChildren, c.SpawnDepth)
		say(len(c.AllowedImages) > 0, "of images %s", strings.Join(c.AllowedImages, " "))
		say(len(c.AllowedWorkspaces) > 0, "on workspaces %s", strings.Join(c.AllowedWorkspaces, " "))
		say(len(c.AllowedSecrets) > 0, "with secrets %s", strings.Join(c.AllowedSecrets, " "))
	}
	say(c.MaxExposePorts > 0, "open %d ports", c.MaxExposePorts)
	say(len(c.LLM) > 0, "use models of %s", strings.Join(c.LLM, " "))
	return strings.Join(rights, ", ")
}

func trafficText(t api.Traffic) string {
	text := fmt.Sprintf("%v and %d connections in, %v and %d out", bytesText(t.BytesIn), t.ConnectionsIn, bytesText(t.BytesOut), t.ConnectionsOut)
	if t.Denied > 0 {
		text += fmt.Sprintf(", %d denied", t.Denied)
	}
	return text
}

// bytesText rounds a number of bytes for people.
func bytesText(n uint64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	f := float64(n)
	for f >= 1000 && len(units) > 1 {
		f /= 1000
		units = units[1:]
	}
	if units[0] == "B" || f >= 100 {
		return fmt.Sprintf("%.0f %s", f, units[0])
	}
	return fmt.Sprintf("%.1f %s", f, units[0])
}

func workspaceText(i api.InstanceInfo) string {
	text := i.Workspace
	if i.WorkspaceDir != "" && i.WorkspaceDir != text {
		text += ", " + i.WorkspaceDir
	}
	return text + readOnlyText(i.WorkspaceReadOnly)
}

func readOnlyText(readOnly bool) string {
	if readOnly {
		return ", read-only"
	}
	return ""
}

func hibernated(i api.InstanceInfo) string {
	if i.Hibernated {
		return ", its memory is saved"
	}
	return ""
}

func pauseText(seconds int64) string {
	if seconds == 0 {
		return "never"
	}
	s := (time.Duration(seconds) * time.Second).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// roundMB drops what nobody reads.
func roundMB(n int64) size.Bytes { return (size.Bytes(n) + size.MiB/2) / size.MiB * size.MiB }
