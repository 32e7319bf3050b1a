// One program with many roles: a real Go Micro service, client and more, for the live tests of pymicro.
//
// It prints lines of JSON, and ends when its stdin does.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// line is what is said in one line of output; "event" says what it is about.
type line map[string]any

// command is a role: it adds its flags, parses the arguments and runs until it is done.
type command func(flags *flag.FlagSet, arguments []string) error

// commands by name; each file adds its own in init.
var commands = map[string]command{}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fail(fmt.Errorf("unknown subcommand: %v", os.Args[1:]))
	}
	os.Stdout = os.Stderr                // Go Micro prints what it logs, and stdout is for lines
	signal.Notify(stop, syscall.SIGTERM) // before the program says that it is ready: then it may be told to stop
	name := os.Args[1]
	fail(commands[name](flag.NewFlagSet(name, flag.ExitOnError), os.Args[2:]))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var (
	lines  = os.Stdout
	saying sync.Mutex
	stop   = make(chan os.Signal, 2)
)

// say prints one line.
func say(what line) {
	saying.Lock()
	defer saying.Unlock()
	encoder := json.NewEncoder(lines)
	encoder.SetEscapeHTML(false)
	fail(encoder.Encode(what))
}

// wait returns when the program is told to stop: by SIGTERM, or because whoever started it is gone.
func wait() error {
	go func() {
		fail(obey(func(json.RawMessage) line { return nil }))
		stop <- syscall.SIGTERM
	}()
	<-stop
	return nil
}

// obey does what each line of stdin says, one after another, and says what became of it: the line that `do` returns,
// with the order's "number" and the event "done". It returns at the end of stdin.
func obey(do func(order json.RawMessage) line) error {
	orders := bufio.NewScanner(os.Stdin)
	orders.Buffer(nil, 64*1024*1024)
	for orders.Scan() {
		order := append(json.RawMessage(nil), orders.Bytes()...)
		var numbered struct {
			Number int `json:"number"`
		}
		if err := json.Unmarshal(order, &numbered); err != nil {
			return err
		}
		if answer := do(order); answer != nil {
			answer["event"], answer["number"] = "done", numbered.Number
			say(answer)
		}
	}
	return orders.Err()
}
