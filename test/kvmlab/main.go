package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kvm-lab:", err)
		os.Exit(1) //nolint:forbidigo // a main
	}
}

// say tells whoever runs the lab how it goes. Both ends say it to their standard output, which is one.
func say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stdout, format, args...) } // nobody may listen

func run(ctx context.Context) error {
	if filepath.Base(os.Args[0]) == goName {
		return handOut(os.Args[1:], filepath.Join(lab, "built"), filepath.Join(lab, "bin"))
	}
	inside := flag.Bool("inside", false, "be the end in the lab")
	o := outer{}
	flag.StringVar(&o.state, "state", ".aegis/lab", "folder that the lab keeps its home and image in")
	flag.StringVar(&o.bin, "bin", "bin", "folder of the programs under test")
	flag.StringVar(&o.test, "home", ".aegis/test", "home that set-up has filled, whose kernel and image VMs in the lab boot")
	flag.StringVar(&o.only, "only", "", "run only the jobs whose name, as in the table, has this in it")
	flag.BoolVar(&o.prepare, "prepare", false, "make everything ready, and start nothing")
	flag.Parse()
	if *inside {
		return runInside(ctx)
	}
	for _, dir := range []*string{&o.state, &o.bin, &o.test} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = abs
	}
	return o.run(ctx)
}
