package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// counted is what is printed in the end; times are seconds.
type counted struct {
	Calls int     `json:"calls"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
}

// measure talks to the harness: "warm" after the warm-up, a line from it to begin, "done" at the end, then the figures.
func measure(one caller, inFlight int, warmUp, length time.Duration) error {
	if _, err := run(one, inFlight, warmUp); err != nil {
		return err
	}
	fmt.Println("warm")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	took, err := run(one, inFlight, length)
	if err != nil {
		return err
	}
	fmt.Println("done")
	slices.Sort(took)
	figures := counted{len(took), took[len(took)/2].Seconds(), took[len(took)*99/100].Seconds()}
	return json.NewEncoder(os.Stdout).Encode(figures)
}

// run calls back to back from so many goroutines; how long each call took.
func run(one caller, inFlight int, length time.Duration) ([]time.Duration, error) {
	end := time.Now().Add(length)
	took := make([][]time.Duration, inFlight)
	errs := make([]error, inFlight)
	var group sync.WaitGroup
	for i := range inFlight {
		group.Add(1)
		go func() {
			defer group.Done()
			for number, now := i*7, time.Now(); now.Before(end); number++ {
				began := now
				if err := one(number); err != nil {
					errs[i] = err
					return
				}
				now = time.Now()
				took[i] = append(took[i], now.Sub(began))
			}
		}()
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return slices.Concat(took...), nil
}
