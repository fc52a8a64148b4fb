// Command xds reads an EDS resource file the way a client of Envoy's published v3 schema must:
// protobuf's strict JSON mapping (an unknown field is an error) and the schema's own validation rules.
// It prints "cluster ip:port" for every endpoint.
package main

import (
	"fmt"
	"os"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
)

func main() {
	if err := check(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	response := &discovery.DiscoveryResponse{}
	if err := protojson.Unmarshal(raw, response); err != nil {
		return err
	}
	if err := response.ValidateAll(); err != nil {
		return err
	}
	if response.VersionInfo == "" {
		return fmt.Errorf("no version_info: an update would not be told from a repetition")
	}
	for _, resource := range response.Resources {
		if resource.TypeUrl != response.TypeUrl {
			return fmt.Errorf("a resource of type %q in a response of type %q", resource.TypeUrl, response.TypeUrl)
		}
		assignment := &endpoint.ClusterLoadAssignment{}
		if err := resource.UnmarshalTo(assignment); err != nil {
			return err
		}
		if err := assignment.ValidateAll(); err != nil {
			return err
		}
		for _, locality := range assignment.Endpoints {
			for _, lb := range locality.LbEndpoints {
				socket := lb.GetEndpoint().GetAddress().GetSocketAddress()
				fmt.Printf("%s %s:%d\n", assignment.ClusterName, socket.GetAddress(), socket.GetPortValue())
			}
		}
	}
	return nil
}
