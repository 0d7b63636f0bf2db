package httpapi

import (
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// handle answers one request. An error it returns becomes the answer; so it has
// written nothing before.
type handle func(w http.ResponseWriter, r *http.Request) error

// route is one line of the table of all routes. Its second half is documentation: a
// test makes the OpenAPI document of it, and holds the server to that.
type route struct {
	method, path string
	handle       handle

	does  string   // what the request is for
	in    any      // the body's type, or nil
	out   any      // the answer's
	query []string // names of its parameters
	lines bool     // the answer is NDJSON of out
	large bool     // the body is passed on, not kept: it has no limit
	body  int64    // limit of the body, where Limits.Body is too small
}

func (s *Server) routes() []route {
	const one = "/v1/instances/{id}"
	done := api.Outcome{}
	return []route{
		{method: http.MethodGet, path: "/v1/status", handle: s.status, does: "What the daemon is", out: api.Status{}},
		{method: http.MethodPost, path: "/v1/shutdown", handle: s.shutdown, does: "Put all instances to sleep, or stop them, then the daemon: an Outcome, then the changes of state", out: api.Event{}, query: []string{"stop"}, lines: true},
		{method: http.MethodPost, path: "/v1/run", handle: s.run, does: "Run a command in a VM of its own, as an attach stream", in: api.RunRequest{}},
		{method: http.MethodPost, path: "/v1/instances", handle: s.createInstance, does: "Create an instance, or start a stopped one of that handle", in: api.CreateRequest{}, out: api.Created{}},
		{method: http.MethodGet, path: "/v1/instances", handle: s.listInstances, does: "List instances", out: []api.Instance{}, query: []string{"state"}},
		{method: http.MethodPost, path: "/v1/instances/prune", handle: s.pruneInstances, does: "Delete instances stopped for long", out: api.Pruned{}, query: []string{"older_than"}},
		{method: http.MethodGet, path: one, handle: s.instanceInfo, does: "All about an instance", out: api.InstanceInfo{}},
		{method: http.MethodDelete, path: one, handle: s.change(Instances.Delete, "deleted"), does: "Delete an instance", out: done},
		{method: http.MethodPost, path: one + "/start", handle: s.change(Instances.Start, api.StateStarting), does: "Enable and start", out: done},
		{method: http.MethodPost, path: one + "/stop", handle: s.stop, does: "Stop the VM; a trigger starts it again, or wakes it where it was", in: api.StopRequest{}, out: done},
		{method: http.MethodPost, path: one + "/restart", handle: s.change(Instances.Restart, "restarting"), does: "Stop and start", out: done},
		{method: http.MethodPost, path: one + "/disable", handle: s.change(Instances.Disable, "disabled"), does: "Stop the VM; only a start starts it again", out: done},
		{method: http.MethodPost, path: one + "/pause", handle: s.change(Instances.Pause, api.StatePaused), does: "Stop the vCPUs", out: done},
		{method: http.MethodPost, path: one + "/resume", handle: s.change(Instances.Resume, api.StateRunning), does: "Wake", out: done},
		{method: http.MethodPost, path: one + "/expose", handle: s.expose, does: "Open a port of the guest on the host", in: api.ExposeRequest{}, out: api.Exposed{}},
		{method: http.MethodDelete, path: one + "/expose/{guest_port}", handle: s.unexpose, does: "Close a port", out: done},
		{method: http.MethodPatch, path: one, handle: s.setInstance, does: "Change how the instance sleeps and what it may reach, at once", in: api.ChangeRequest{}, out: api.InstanceInfo{}},
		{method: http.MethodPost, path: one + "/schedules", handle: s.addSchedule, does: "Run a command in the instance at times, and wake it for that", in: api.ScheduleRequest{}, out: api.Schedule{}},
		{method: http.MethodGet, path: one + "/schedules", handle: s.listSchedules, does: "List the instance's schedules, and those of its agent", out: []api.Schedule{}},
		{method: http.MethodDelete, path: one + "/schedules/{schedule_id}", handle: s.removeSchedule, does: "Forget a schedule; a run that is under way goes on", out: done},
		{method: http.MethodPost, path: one + "/exec", handle: s.exec, does: "Run a command in the instance, as an attach stream or as lines", in: api.ExecRequest{}, out: api.LogEntry{}, lines: true},
		{method: http.MethodGet, path: one + "/logs", handle: s.logs, does: "Lines of the log", out: api.LogEntry{}, query: []string{"follow", "since", "tail", "exec_id", "execs"}, lines: true},
		{method: http.MethodGet, path: one + "/files", handle: s.readFiles, does: "A file or tree of the VM, as a tar archive", out: tarball(""), query: []string{"path"}},
		{method: http.MethodPut, path: one + "/files", handle: s.writeFiles, does: "Unpack a tar archive in the VM", in: tarball(""), out: api.Copied{}, query: []string{"path", "owners", "extract"}, large: true},
		{method: http.MethodPost, path: one + "/fork", handle: s.fork, does: "Copies of the instance as it is now, which go on by themselves", in: api.ForkRequest{}, out: []api.Forked{}},
		{method: http.MethodPost, path: one + "/snapshots", handle: s.makeSnapshot, does: "Keep the instance as it is now", in: api.SnapshotRequest{}, out: api.Snapshot{}},
		{method: http.MethodPost, path: one + "/restore", handle: s.restore, does: "Go back to a snapshot of the instance itself", in: api.RestoreRequest{}, out: done},
		{method: http.MethodGet, path: "/v1/snapshots", handle: s.listSnapshots, does: "List snapshots", out: []api.Snapshot{}},
		{method: http.MethodDelete, path: "/v1/snapshots/{id}", handle: s.deleteSnapshot, does: "Delete a snapshot; what was started from it goes on", out: done},
		{method: http.MethodGet, path: one + "/workspace/tree", handle: s.inWorkspace(workspaceTree), does: "What is in a folder of the workspace", out: []api.WorkspaceEntry{}, query: []string{"path"}},
		{method: http.MethodGet, path: one + "/workspace", handle: s.inWorkspace(readWorkspace), does: "A file of the workspace, of at most 10 MB", out: octets(""), query: []string{"path"}},
		{method: http.MethodPost, path: one + "/workspace", handle: s.inWorkspace(writeWorkspace), does: "Write a file of the workspace, of at most 10 MB", in: octets(""), out: api.Written{}, query: []string{"path"}, body: maxFileBody},
		{method: http.MethodPost, path: one + "/blob", handle: s.inWorkspace(putBlob), does: "Keep a PNG, JPEG, GIF or WebP of at most 10 MB in the workspace", in: octets(""), out: api.Blob{}, body: maxFileBody},
		{method: http.MethodPost, path: one + "/tether", handle: s.sendFrame, does: "Store a frame for the agent, and wake the instance to bring it there", in: api.Frame{}, out: api.TetherSent{}, body: maxFrameBody},
		{method: http.MethodGet, path: one + "/tether/poll", handle: s.pollFrames, does: "Stored frames, waiting for one where there is none", out: api.TetherPage{}, query: frameQuery},
		{method: http.MethodGet, path: one + "/tether/stream", handle: s.streamFrames, does: "Frames as they come, deltas among them; those stored behind after_seq first", out: api.Frame{}, query: frameQuery, lines: true},
		{method: http.MethodGet, path: one + "/tether/watermark", handle: s.watermark, does: "How far a channel's reader has read", out: api.Watermark{}, query: []string{"channel"}},
		{method: http.MethodPost, path: one + "/tether/watermark", handle: s.setWatermark, does: "Raise that", in: api.Watermark{}, out: api.Watermark{}},
		{method: http.MethodPut, path: one + "/secrets", handle: s.grantSecrets, does: "Which secrets its program and execs are given", in: api.SecretNames{}, out: api.InstanceSecrets{}},
		{method: http.MethodPost, path: one + "/commit", handle: s.commit, does: "Make an image of the instance", in: api.ImageCommitRequest{}, out: api.Image{}},
		{method: http.MethodGet, path: "/v1/kits", handle: s.listKits, does: "List kits, broken ones among them", out: []api.Kit{}},
		{method: http.MethodGet, path: one + "/kit-config", handle: s.readKitConfig, does: "A file that configures a sidecar of the instance", out: octets(""), query: []string{"file"}},
		{method: http.MethodPost, path: one + "/kit-config", handle: s.writeKitConfig, does: "Write a file that configures a sidecar, of at most 1 MB", in: octets(""), out: api.Written{}, query: []string{"file"}, body: api.MaxKitConfig + 1<<10},
		{method: http.MethodGet, path: "/v1/images", handle: s.listImages, does: "List images", out: []api.Image{}},
		{method: http.MethodDelete, path: "/v1/images", handle: s.removeImage, does: "Take a name of an image away, and the image with the last", out: api.ImagesRemoved{}, query: []string{"ref", "force"}},
		{method: http.MethodGet, path: "/v1/images/inspect", handle: s.inspectImage, does: "All about an image", out: api.Image{}, query: []string{"ref"}},
		{method: http.MethodPost, path: "/v1/images/pull", handle: s.pullImage, does: "Get an image from its registry", in: api.ImagePullRequest{}, out: api.ImageProgress{}, lines: true},
		{method: http.MethodPost, path: "/v1/images/warm", handle: s.warmImage, does: "Make in advance what instances of an image start from", in: api.ImageWarmRequest{}, out: api.Image{}},
		{method: http.MethodPost, path: "/v1/images/import", handle: s.importImage, does: "Take images from an archive or folder of this host, or from an archive in the body", in: tarball(""), out: api.ImageProgress{}, query: []string{"path", "name"}, lines: true, large: true},
		{method: http.MethodPost, path: "/v1/images/prune", handle: s.pruneImages, does: "Remove what nobody needs", out: api.ImagesRemoved{}, query: []string{"all"}},
		{method: http.MethodGet, path: "/v1/secrets", handle: s.listSecrets, does: "Names and dates of all secrets", out: []api.Secret{}},
		{method: http.MethodPut, path: "/v1/secrets/{name}", handle: s.setSecret, does: "Store a secret", in: api.SecretValue{}, out: api.Secret{}, body: maxSecretBody},
		{method: http.MethodGet, path: "/v1/secrets/{name}", handle: s.refuseSecret, does: "Refused: values are never returned", out: refusal{}},
		{method: http.MethodDelete, path: "/v1/secrets/{name}", handle: s.deleteSecret, does: "Forget a secret", out: done},
		{method: http.MethodPost, path: "/v1/master-key/rotate", handle: s.rotateKey, does: "Make a new master key and seal all secrets with it", out: api.Rotated{}},
		{method: http.MethodGet, path: "/v1/metrics", handle: s.metrics, does: "Metrics in Prometheus's text format", out: text("")},
		{method: http.MethodGet, path: "/v1/events", handle: s.events, does: "Changes of state from now on", out: api.Event{}, lines: true},
	}
}

// handler returns the routes behind the gate.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	byPath := map[string][]route{}
	for _, r := range s.routes() {
		byPath[r.path] = append(byPath[r.path], r)
	}
	for path, routes := range byPath {
		mux.Handle(path, s.guard(s.byMethod(routes)))
	}
	mux.Handle("/", s.guard(func(_ http.ResponseWriter, r *http.Request) error {
		return fault.New(fault.NotFound, "%s is not part of this API", r.URL.Path).
			WithHint("client and daemon may be of different versions; see: aegis version")
	}))
	return mux
}

// byMethod picks the route of one path, and bounds the body unless the route passes it
// on. The mux could pick, but its refusals are not JSON.
func (s *Server) byMethod(routes []route) handle {
	return func(w http.ResponseWriter, r *http.Request) error {
		if i := slices.IndexFunc(routes, func(x route) bool { return x.method == r.Method }); i >= 0 {
			if !routes[i].large {
				return bounded(routes[i].handle, max(s.conf.Limits.Body, routes[i].body))(w, r)
			}
			return routes[i].handle(w, r)
		}
		var allowed []string
		for _, x := range routes {
			allowed = append(allowed, x.method)
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		return fault.Wrap(fault.Invalid, errMethod, "%s %s", r.Method, r.URL.Path)
	}
}

// drained is what is read, at most, of a body that is too large: clients write all of it
// before they read the answer.
const drained = 64 << 20

// bounded refuses bodies over limit.
func bounded(h handle, limit int64) handle {
	return func(w http.ResponseWriter, r *http.Request) error {
		whole := r.Body
		r.Body = http.MaxBytesReader(w, whole, limit)
		err := h(w, r)
		if isTooLarge(err) || fault.KindOf(err) == fault.TooLarge {
			_, _ = io.CopyN(io.Discard, whole, drained) // the error that it is answered with tells more
		}
		return err
	}
}

// guard is the one gate that every request passes: it lets in the daemon's user and
// root, and turns errors and panics into answers.
func (s *Server) guard(h handle) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.rescue(w, r)
		defer s.track(w)()
		err := s.admit(r)
		if err == nil {
			err = h(w, r)
		}
		if err != nil {
			s.answerError(w, r, err)
		}
	})
}

// admit checks who is at the other end of the connection. The socket's mode keeps
// others out too; this holds also where somebody has opened the folder.
func (s *Server) admit(r *http.Request) error {
	uid, err := peerOf(r.Context())
	if err != nil {
		return fault.Wrap(fault.Denied, err, "cannot tell who is calling")
	}
	if uid != s.uid && uid != 0 {
		return fault.New(fault.Denied, "this daemon belongs to another user").
			WithHint("start your own: unset AEGIS_HOME, then aegis up")
	}
	return nil
}

// rescue answers for a handler that panicked. The daemon goes on: it has other
// users' VMs to care for.
func (s *Server) rescue(w http.ResponseWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler { //nolint:errorlint // compared as net/http does
		panic(p)
	}
	err := fault.New(fault.Internal, "a defect in aegisd stopped this request").
		WithHint("the log has the details; please report them")
	s.conf.Log.ErrorContext(r.Context(), "panic", logattr.Request(r.Method, r.URL.Path), logattr.Panic(p))
	s.answerError(w, r, err)
}
