package guesttest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// builtins are the commands of every scripted guest.
func builtins() map[string]Program {
	return map[string]Program{
		"true":   func(context.Context, *IO) int { return 0 },
		"false":  func(context.Context, *IO) int { return 1 },
		"echo":   echo,
		"cat":    cat,
		"sleep":  sleep,
		"yes":    yes,
		"env":    env,
		"digest": digest,
		"pwd":    pwd,
		"trap":   trap,
		"tty":    tty,
		"sh":     sh,
		"hog":    hog,
	}
}

func echo(_ context.Context, x *IO) int {
	_, err := fmt.Fprintln(x.Stdout, strings.Join(x.Args[1:], " "))
	return status(err)
}

// hog ends as one that the kernel kills for memory.
func hog(_ context.Context, x *IO) int {
	x.p.mu.Lock()
	defer x.p.mu.Unlock()
	x.p.starved = true
	return 137
}

func status(err error) int {
	if err != nil {
		return 1
	}
	return 0
}

func cat(_ context.Context, x *IO) int {
	_, err := io.Copy(x.Stdout, x.Stdin)
	return status(err)
}

func sleep(ctx context.Context, x *IO) int {
	if len(x.Args) != 2 {
		return usage(x, "sleep SECONDS")
	}
	s, err := strconv.ParseFloat(x.Args[1], 64)
	if err != nil {
		return usage(x, "sleep SECONDS")
	}
	timer := time.NewTimer(time.Duration(s * float64(time.Second)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return 0
}

func usage(x *IO, text string) int {
	_, _ = fmt.Fprintln(x.Stderr, "usage:", text) // nobody to tell
	return 2
}

// yes writes lines until nobody reads them, or as many bytes as its argument says.
func yes(_ context.Context, x *IO) int {
	block := []byte(strings.Repeat("y\n", 16<<10))
	left := int64(1) << 62
	if len(x.Args) > 1 {
		n, err := strconv.ParseInt(x.Args[1], 10, 64)
		if err != nil {
			return usage(x, "yes [BYTES]")
		}
		left = n
	}
	for left > 0 {
		n, err := x.Stdout.Write(block[:min(left, int64(len(block)))])
		if err != nil {
			return 1
		}
		left -= int64(n)
	}
	return 0
}

func env(_ context.Context, x *IO) int {
	for _, e := range x.Env {
		if _, err := fmt.Fprintln(x.Stdout, e); err != nil {
			return 1
		}
	}
	return 0
}

// digest prints the SHA-256 of variables' values, or that they are not set: so a test
// knows what a secret is, which is written nowhere.
func digest(_ context.Context, x *IO) int {
	for _, name := range x.Args[1:] {
		what := "unset"
		for _, e := range x.Env {
			if v, ok := strings.CutPrefix(e, name+"="); ok {
				what = fmt.Sprintf("%x", sha256.Sum256([]byte(v)))
			}
		}
		if _, err := fmt.Fprintln(x.Stdout, name, what); err != nil {
			return 1
		}
	}
	return 0
}

func pwd(_ context.Context, x *IO) int {
	dir := x.Dir
	if dir == "" {
		dir = "/"
	}
	_, err := fmt.Fprintln(x.Stdout, dir)
	return status(err)
}

// trap prints the signals it gets, and ends with SIGTERM.
func trap(ctx context.Context, x *IO) int {
	signals := x.Trap()
	if _, err := fmt.Fprintln(x.Stdout, "ready"); err != nil {
		return 1
	}
	for {
		select {
		case sig := <-signals:
			if _, err := fmt.Fprintln(x.Stdout, "signal", sig); err != nil {
				return 1
			}
			if sig == 15 {
				return 0
			}
		case <-ctx.Done():
			return 1
		}
	}
}

// tty prints the size of its terminal, then each new one, and echoes lines, until
// its input ends.
func tty(ctx context.Context, x *IO) int {
	if x.TTY == nil {
		_, _ = fmt.Fprintln(x.Stdout, "not a tty") // nobody to tell
		return 1
	}
	lines := make(chan string)
	go func() { // ends with the input, which ends with the program
		defer close(lines)
		for in := bufio.NewScanner(x.Stdin); in.Scan(); {
			select {
			case lines <- in.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	text, ok := fmt.Sprintf("%dx%d", x.TTY.Cols, x.TTY.Rows), true
	for ok {
		if _, err := fmt.Fprint(x.Stdout, text, "\r\n"); err != nil {
			return 1
		}
		select {
		case size := <-x.Resized():
			text = fmt.Sprintf("%dx%d", size.Cols, size.Rows)
		case text, ok = <-lines:
		case <-ctx.Done():
			return 1
		}
	}
	return 0
}

// sh runs `-c SCRIPT`: simple commands of the other programs with `;`, `>&2`,
// quotes, $VARIABLES and `exit N`.
func sh(ctx context.Context, x *IO) int {
	if len(x.Args) != 3 || x.Args[1] != "-c" {
		return usage(x, "sh -c SCRIPT")
	}
	vars := map[string]string{}
	for _, e := range x.Env {
		k, v, _ := strings.Cut(e, "=")
		vars[k] = v
	}
	programs, code := builtins(), 0
	for line := range strings.SplitSeq(x.Args[2], ";") {
		line = strings.TrimSpace(line)
		sub := *x
		if rest, ok := strings.CutSuffix(line, ">&2"); ok {
			line, sub.Stdout = strings.TrimSpace(rest), x.Stderr
		}
		expanded := os.Expand(line, func(name string) string { return vars[name] })
		sub.Args = strings.Fields(strings.NewReplacer(`"`, "", "'", "").Replace(expanded))
		if len(sub.Args) == 0 {
			continue
		}
		if sub.Args[0] == "exit" {
			if len(sub.Args) > 1 {
				code, _ = strconv.Atoi(sub.Args[1])
			}
			return code & 0xff
		}
		program, ok := programs[sub.Args[0]]
		if !ok {
			_, _ = fmt.Fprintf(x.Stderr, "sh: %s: not found\n", sub.Args[0]) // nobody to tell
			code = 127
			continue
		}
		code = program(ctx, &sub)
		if ctx.Err() != nil {
			return code
		}
	}
	return code
}
