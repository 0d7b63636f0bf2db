// Package msix stands in for go.digitalxero.dev/go-msix, with which goreleaser writes packages
// for Windows. AegisVM has none, and not every module proxy serves that module; with this in
// its place the release tool builds wherever AegisVM does. It has what goreleaser refers to, and
// makes no package.
package msix

import (
	"crypto"
	"crypto/x509"
	"errors"
	"io"
)

// errNone is what all that would make a package returns.
var errNone = errors.New("packages for Windows are not built")

// Builder would write a package.
type Builder struct {
	Manifest    Manifest
	SignOptions *SignOptions
}

// NewBuilder returns a Builder of nothing.
func NewBuilder() *Builder { return &Builder{} }

// AddFile returns an error.
func (*Builder) AddFile(string, string) error { return errNone }

// Build returns an error.
func (*Builder) Build(io.Writer) error { return errNone }

// LoadPFX returns an error.
func LoadPFX(string, string) (*x509.Certificate, crypto.PrivateKey, []*x509.Certificate, error) {
	return nil, nil, nil, errNone
}

// SignOptions are who would sign a package.
type SignOptions struct {
	Certificate *x509.Certificate
	PrivateKey  crypto.PrivateKey
	CertChain   []*x509.Certificate
}

// Manifest is what a package would say of itself.
type Manifest struct {
	Identity     Identity
	Properties   Properties
	Dependencies Dependencies
	Resources    []Resource
	Applications []Application
	Capabilities Capabilities
}

// The parts of a manifest.
type (
	Identity           struct{ Name, Version, Publisher, ProcessorArchitecture, ResourceID string }
	Properties         struct{ DisplayName, PublisherDisplayName, Logo, Description string }
	Dependencies       struct{ TargetDeviceFamilies []TargetDeviceFamily }
	TargetDeviceFamily struct{ Name, MinVersion, MaxVersionTested string }
	Resource           struct{ Language string }
	Application        struct {
		ID, Executable, EntryPoint string
		VisualElements             VisualElements
	}
	VisualElements struct {
		DisplayName, Description, BackgroundColor string
		Square150x150Logo, Square44x44Logo        string
	}
	Capabilities struct {
		Capabilities       []Capability
		DeviceCapabilities []DeviceCapability
		Restricted         []RestrictedCapability
	}
	Capability           struct{ Name string }
	DeviceCapability     struct{ Name string }
	RestrictedCapability struct{ Name string }
)
