// Command containerfile parses a container file with BuildKit's own frontend and prints what its linter finds,
// as `docker build --check` does. It exits with 1 if there is anything.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/opencontainers/go-digest"
)

func main() {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		fail(err)
	}
	source := llb.NewSourceMap(nil, os.Args[1], "Dockerfile", text)
	source.Definition = &llb.Definition{} // Where the text came from: no build context.
	platform := platforms.MustParse("linux/amd64")
	found, err := dockerfile2llb.DockerfileLint(context.Background(), text, dockerfile2llb.ConvertOpt{
		MetaResolver:   noImages{},
		TargetPlatform: &platform,
		SourceMap:      source,
	})
	if err != nil {
		fail(err)
	}
	for _, warning := range found.Warnings {
		fmt.Printf("%s: %s\n", warning.RuleName, warning.Detail)
	}
	if found.Error != nil {
		fmt.Println("error:", found.Error.Message)
	}
	if len(found.Warnings) > 0 || found.Error != nil {
		os.Exit(1)
	}
}

// noImages stands for the registry: each base image exists and sets nothing.
type noImages struct{}

func (noImages) ResolveImageConfig(
	_ context.Context, name string, _ sourceresolver.Opt,
) (string, digest.Digest, []byte, error) {
	return name, "", []byte(`{"architecture": "amd64", "os": "linux", "config": {}}`), nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(2)
}
