package cli

import (
	"testing"

	"github.com/xfeldman/aegisvm/api"
)

func TestTrafficText(t *testing.T) {
	got := trafficText(api.Traffic{BytesIn: 999, BytesOut: 12_345_678, ConnectionsIn: 1, ConnectionsOut: 20, Denied: 3})
	if want := "999 B and 1 connections in, 12.3 MB and 20 out, 3 denied"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestRightsText(t *testing.T) {
	for want, c := range map[string]*api.Capabilities{
		"": nil,
		"start 3 children, 2 generations deep, of images alpine, with secrets *": {Spawn: true, MaxChildren: 3, SpawnDepth: 2, AllowedImages: []string{"alpine"}, AllowedSecrets: []string{"*"}},
		"open 2 ports, use models of ollama vllm":                                {AllowedImages: []string{"*"}, MaxExposePorts: 2, LLM: []string{"ollama", "vllm"}},
	} {
		if got := rightsText(c); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
