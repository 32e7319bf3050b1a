package main

import (
	"encoding/json"
	"flag"
	"fmt"

	"go-micro.dev/v5/transport"
)

func init() { commands["socket"] = socket }

// message is what goes over a socket.
type message struct {
	Do      string            `json:"do"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

// socket sends and receives messages of Go Micro's transport as they are, without its client.
func socket(flags *flag.FlagSet, arguments []string) error {
	address := flags.String("address", "", "whom to connect to")
	medium := flags.String("transport", "http", "http, or where it is")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	carrier, err := transportOf(*medium, "", "", "")
	if err != nil {
		return err
	}
	connection, err := carrier.Dial(*address, transport.WithStream())
	if err != nil {
		return err
	}
	say(line{"event": "ready"})
	return obey(func(raw json.RawMessage) line {
		var m message
		if err := json.Unmarshal(raw, &m); err != nil {
			return line{"error": problem(err)}
		}
		switch m.Do {
		case "send":
			return line{"error": problem(connection.Send(&transport.Message{Header: m.Headers, Body: []byte(m.Body)}))}
		case "receive":
			var reply transport.Message
			if err := connection.Recv(&reply); err != nil {
				return line{"error": problem(err)}
			}
			return line{"error": nil, "headers": reply.Header, "body": string(reply.Body)}
		case "close":
			return line{"error": problem(connection.Close())}
		}
		return line{"error": problem(fmt.Errorf("unknown order: %s", m.Do))}
	})
}
