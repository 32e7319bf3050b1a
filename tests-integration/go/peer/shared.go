package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go-micro.dev/v5/broker"
	merrors "go-micro.dev/v5/errors"
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/transport"
)

// HelloRequest is the request of Greeter.Hello.
type HelloRequest struct {
	Name string `json:"name"`
}

// HelloResponse is its response.
type HelloResponse struct {
	Greeting string `json:"greeting"`
}

// Number is one message of a stream.
type Number struct {
	Value int `json:"value"`
}

// What a program can be told to use: by a name, or by an address such as "nats://127.0.0.1:4222", whose scheme is the
// name. Each function gets the rest of the address. Files that are built in besides add their own in init.
var (
	registries = map[string]func(address string) registry.Registry{
		"memory": func(string) registry.Registry { return registry.NewMemoryRegistry() },
		"mdns":   func(string) registry.Registry { return registry.NewMDNSRegistry() },
	}
	brokers = map[string]func(address string) broker.Broker{
		"http": func(string) broker.Broker { return broker.NewHttpBroker(broker.Registry(registry.NewMDNSRegistry())) },
	}
	transports = map[string]func(address string) transport.Transport{
		"http": func(string) transport.Transport { return transport.NewHTTPTransport() },
	}
)

// named makes what the table has by that name or address.
func named[T any](table map[string]func(string) T, where string) (T, error) {
	kind, address, _ := strings.Cut(where, "://")
	make, known := table[kind]
	if !known {
		var none T
		return none, fmt.Errorf("this program was built without %s", kind)
	}
	return make(address), nil
}

// registryOf makes a registry: "memory" for none that others see, "mdns", or an address.
func registryOf(where string) (registry.Registry, error) {
	return named(registries, where)
}

// brokerOf makes a broker: "http", Go Micro's default, which finds its subscribers by mDNS, or an address.
func brokerOf(where string) (broker.Broker, error) {
	return named(brokers, where)
}

// transportOf makes a transport: "http" or an address. With a CA, clients use TLS and trust it; with a certificate, servers
// use TLS.
func transportOf(where, ca, cert, key string) (transport.Transport, error) {
	if ca == "" && cert == "" {
		return named(transports, where)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(pem)
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return transport.NewHTTPTransport(transport.Secure(true), transport.TLSConfig(config)), nil
}

// pattern is so many bytes that can be recognised when pieces of them are lost or change places.
func pattern(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i % 251)
	}
	return data
}

// digest stands for bytes that are too many for a line.
func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// problem is an error as a line says it: Go Micro's four fields, or that a stream ended.
func problem(err error) any {
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return "EOF"
	}
	parsed := merrors.FromError(err)
	return map[string]any{"id": parsed.Id, "code": parsed.Code, "detail": parsed.Detail, "status": parsed.Status}
}
