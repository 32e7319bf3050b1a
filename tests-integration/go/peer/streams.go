package main

import (
	"context"
	"errors"
	"io"
	"time"

	merrors "go-micro.dev/v5/errors"
	"go-micro.dev/v5/server"
)

// What a number means to Echo.
const (
	leave = -1 // the handler ends the stream
	fall  = -2 // the handler fails
)

// Streams has the calls with more than one request or response.
type Streams struct{}

// Echo answers each number, until the caller or one of the numbers above ends it.
func (*Streams) Echo(_ context.Context, stream server.Stream) error {
	for {
		var number Number
		if err := stream.Recv(&number); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		switch number.Value {
		case leave:
			return nil
		case fall:
			return merrors.Conflict("streams", "no more")
		}
		if err := stream.Send(&number); err != nil {
			return err
		}
	}
}

// Range is what Count counts.
type Range struct {
	Upto int `json:"upto"`
	// Pause is the milliseconds between two numbers: Go Micro's server spoils what it sends without one.
	Pause int `json:"pause"`
}

// Count sends the numbers below the request's, which is the first message after the one that opens the stream.
func (*Streams) Count(_ context.Context, stream server.Stream) error {
	var request Range
	if err := stream.Recv(&request); err != nil {
		return err
	}
	for value := range request.Upto {
		time.Sleep(time.Duration(request.Pause) * time.Millisecond)
		if err := stream.Send(&Number{Value: value}); err != nil {
			return err
		}
	}
	return nil
}

// Total sends one number: the sum of all that it gets.
func (*Streams) Total(_ context.Context, stream server.Stream) error {
	var sum Number
	for {
		var number Number
		err := stream.Recv(&number)
		if errors.Is(err, io.EOF) {
			return stream.Send(&sum)
		}
		if err != nil {
			return err
		}
		sum.Value += number.Value
	}
}
