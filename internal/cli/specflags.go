package cli

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/xfeldman/aegisvm/internal/config"
)

// specFlags are the options that say what an instance is made of.
type specFlags struct {
	name    string
	image   string
	pull    pullFlag
	kit     string
	env     envFlags
	secrets secretsFlag
	workdir string
	user    string
	memory  sizeFlag
	cpus    countFlag
	disk    sizeFlag
	vmm     string
	expose  exposeFlags
	egress  string
	allow   []string
	folders folderFlags
	rights  capabilitiesFlag
}

// add adds the options to a command's, in the order of its help.
func (s *specFlags) add(f *pflag.FlagSet) {
	f.StringVar(&s.name, "name", "", "`NAME` of the instance, also its hostname")
	f.StringVar(&s.image, "image", "", "image that the VM runs: `NAME`, HOST/NAME:TAG or an id (see: aegis help image)")
	f.Var(&s.pull, "pull", "get the image: `always|missing|never` (default missing)")
	f.StringVar(&s.kit, "kit", "", "`KIT` whose image, command and programs the instance gets (see: aegis kit list)")
	s.expose.add(f)
	f.StringVar(&s.egress, "egress", "", "what the VM may reach: `none|public|all`, all being this host's own network too (default public)")
	f.StringArrayVar(&s.allow, "allow-host", nil, "let the VM reach `NAME|CIDR[:PORT]`; without --egress nothing else (repeat)")
	s.folders.add(f)
	s.env.add(f)
	f.Var(&s.secrets, "secret", "set the stored secret `KEY` in the command's environment; '*' is all of them (repeat)")
	f.StringVar(&s.workdir, "workdir", "", "`DIR` in the VM in which the command starts")
	f.StringVar(&s.user, "user", "", "`USER[:GROUP]` in the VM, by name or number, that the command runs as")
	f.Var(&s.memory, "memory", "memory of the VM: `SIZE` such as 512M or 2G (default 512M)")
	f.Var(&s.cpus, "cpus", "`NUMBER` of virtual CPUs (default 1)")
	f.Var(&s.disk, "disk", "`SIZE` of the disk, which takes only what is written (default 8G)")
	f.StringVar(&s.vmm, "vmm", "", "fail unless VMs run on `VMM`, such as qemu; one runs them all (see the setting vmm)")
	f.Var(&s.rights, "capabilities", "what the VM may ask of this host over the Guest API, as JSON in `FILE` (default nothing)")
}

// add adds --env and --env-file.
func (e *envFlags) add(f *pflag.FlagSet) {
	f.Var(envFlag{e}, "env", "set `KEY=VALUE` in the command's environment; KEY alone takes the value from here (repeat)")
	f.Var(envFileFlag{e}, "env-file", "set the lines KEY=VALUE or KEY of `FILE` (repeat)")
}

// spanFlag is a span of time as users write it.
type spanFlag struct {
	text string // as it was given
	span time.Duration
}

func (f *spanFlag) Set(s string) (err error) {
	f.text = s
	f.span, err = config.ParseDuration(s)
	return err
}

func (f *spanFlag) String() string { return f.text }
func (*spanFlag) Type() string     { return "duration" }

// wholeSeconds returns the span rounded up, or nil if it was not given.
func (f *spanFlag) wholeSeconds() *int64 {
	if f.text == "" {
		return nil
	}
	s := int64((f.span + time.Second - 1) / time.Second)
	return &s
}
