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

// registryOf makes a registry: "memory" for none that others see, or "mdns".
func registryOf(kind string) (registry.Registry, error) {
	switch kind {
	case "memory":
		return registry.NewMemoryRegistry(), nil
	case "mdns":
		return registry.NewMDNSRegistry(), nil
	}
	return nil, fmt.Errorf("no such registry: %s", kind)
}

// transportOf makes an HTTP transport. With a CA, clients use TLS and trust it; with a certificate, servers use TLS.
func transportOf(ca, cert, key string) (transport.Transport, error) {
	if ca == "" && cert == "" {
		return transport.NewHTTPTransport(), nil
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
