// The greeter of the benchmarks in Go Micro: "greeter serve" is its server, "greeter call" its client and the load.
package main

import (
	"fmt"
	"os"
)

// HelloRequest is what the other peers send.
type HelloRequest struct {
	Name string `json:"name"`
}

// HelloResponse is what they answer.
type HelloResponse struct {
	Greeting string `json:"greeting"`
}

// Blob carries bytes, which encoding/json writes as base64.
type Blob struct {
	Data []byte `json:"data"`
}

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("say serve or call"))
	}
	switch os.Args[1] {
	case "serve":
		fail(serve())
	case "call":
		fail(call(os.Args[2:]))
	default:
		fail(fmt.Errorf("unknown: %s", os.Args[1]))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
