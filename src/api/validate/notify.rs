//! `spec.notify` and `spec.breakers[].notify`.

use serde_json::Value;

use super::{
    super::{
        notify::{NotifyPort, NotifyRule, NotifyRules},
        raw::{RawNotify, RawSpec},
        report::Report,
    },
    forms,
    sources::secret_key,
    take::Take,
};
use crate::decide::label::is_dns_label;

pub(super) fn rules(spec: &RawSpec, report: &mut Report<'_>) -> NotifyRules {
    let default = spec.notify.as_ref().map(|raw| rule("spec.notify", raw, report));
    let mut rules = NotifyRules { default, ..NotifyRules::default() };
    for (index, breaker) in spec.breakers.iter().flatten().enumerate() {
        if let (Some(name), Some(raw)) = (&breaker.name, &breaker.notify) {
            let rule = rule(&format!("spec.breakers[{index}].notify"), raw, report);
            rules.breakers.insert(name.clone(), rule);
        }
    }
    rules
}

fn rule(path: &str, raw: &RawNotify, report: &mut Report<'_>) -> NotifyRule {
    let mut take = Take { report, path };
    let port = raw.port.as_ref().and_then(port);
    match &raw.port {
        None => take.report.missing(&format!("{path}.port")),
        Some(value) if port.is_none() => take.misfit("port", format!("is {value}")),
        Some(_) => {}
    }
    let target = raw.path.clone().unwrap_or_else(|| "/".to_owned());
    if !forms::is_path(&target) {
        take.misfit("path", format!("is {target:?}"));
    }
    let target = take.text("path", &target);
    let hmac = raw.hmac_secret.as_ref().map(|raw| secret_key(&format!("{path}.hmacSecret"), raw, report));
    NotifyRule { port: port.unwrap_or(NotifyPort::Number(1)), path: target, hmac }
}

/// A number from 1 to 65535, or a name as a container's port has one.
fn port(value: &Value) -> Option<NotifyPort> {
    match value {
        Value::Number(number) => {
            let number = u16::try_from(number.as_u64()?).ok().filter(|number| *number > 0)?;
            Some(NotifyPort::Number(number))
        }
        Value::String(name) => {
            let fits =
                is_dns_label(name) && name.len() <= 15 && name.contains(|c: char| c.is_ascii_lowercase());
            fits.then(|| NotifyPort::Name(name.clone()))
        }
        _ => None,
    }
}
