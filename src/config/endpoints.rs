//! Settings of the endpoints file: path, format, and source of the pods' traffic port.

use std::path::PathBuf;

use clap::ValueEnum;

use super::{CommandLine, EndpointsConfig, EndpointsFormat, RunAs, TargetPort, environment::Reader};

pub(super) fn read(reader: &mut Reader<'_>, user: &RunAs) -> Option<EndpointsConfig> {
    let path = PathBuf::from(reader.get("KUBERVISOR_ENDPOINTS")?);
    let format = format(reader);
    let json = path.extension().is_some_and(|extension| extension == "json");
    if !json && matches!(format, EndpointsFormat::Envoy | EndpointsFormat::FileSd) {
        reader.complain(
            "KUBERVISOR_ENDPOINTS",
            "this format is only read from files that end in .json; rename it",
        );
    }
    let port = port(reader);
    let roles = reader.list("KUBERVISOR_ENDPOINTS_ROLES").into_iter().map(str::to_owned).collect();
    let fleet_size = reader.count("KUBERVISOR_FLEET_SIZE");
    let command = reader.get("KUBERVISOR_ENDPOINTS_COMMAND").map(|line| CommandLine::Shell(line.to_owned()));
    let in_place = reader.switch("KUBERVISOR_ENDPOINTS_IN_PLACE");
    let user = user.clone();
    Some(EndpointsConfig { path, format, port: port?, roles, fleet_size, command, user, in_place })
}

fn format(reader: &mut Reader<'_>) -> EndpointsFormat {
    let parse = |text: &str| EndpointsFormat::from_str(text, false).ok();
    let names = EndpointsFormat::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let names = names.map(|value| value.get_name().to_owned()).collect::<Vec<_>>().join(", ");
    let expected = format!("no format; write one of {names}");
    reader.parse("KUBERVISOR_ENDPOINTS_FORMAT", &expected, parse).unwrap_or(EndpointsFormat::Plain)
}

fn port(reader: &mut Reader<'_>) -> Option<TargetPort> {
    let pointer = reader.get("KUBERVISOR_TARGET_PORT_POINTER");
    match (reader.get("KUBERVISOR_TARGET_PORT"), pointer) {
        (Some(_), None) => reader.port("KUBERVISOR_TARGET_PORT").map(TargetPort::Fixed),
        (None, Some(pointer)) if pointer.starts_with('/') => Some(TargetPort::Pointer(pointer.to_owned())),
        (None, Some(_)) => {
            reader.refuse("KUBERVISOR_TARGET_PORT_POINTER", "no JSON pointer; write for example /port")
        }
        (Some(_), Some(_)) => reader
            .refuse("KUBERVISOR_TARGET_PORT", "KUBERVISOR_TARGET_PORT_POINTER is set too; keep one of them"),
        (None, None) => reader.refuse(
            "KUBERVISOR_TARGET_PORT",
            "not set, but KUBERVISOR_ENDPOINTS is: which port gets traffic? Write a port, or set \
             KUBERVISOR_TARGET_PORT_POINTER to where it is in the payload, for example /port",
        ),
    }
}
