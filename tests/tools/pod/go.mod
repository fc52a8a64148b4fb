// The program of the pods on the real node: nothing but Go's standard library, so that it is static.
module kubervisor.test/pod

go 1.26.0
