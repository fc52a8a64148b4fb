//! The missing right in a refusal by RBAC, read from the API server's message.

/// Verb and resource, such as `patch pods`; `None`: the message is not a refusal by RBAC.
pub fn missing(message: &str) -> Option<String> {
    let (_, rest) = message.split_once(" cannot ")?;
    let (verb, rest) = rest.split_once(" resource \"")?;
    let (resource, _) = rest.split_once('"')?;
    let word = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
    (word(verb) && word(resource)).then(|| format!("{verb} {resource}"))
}

/// Whether it is what [`missing`] returns, and no sentence.
pub fn is_right(text: &str) -> bool {
    text.split(' ').count() == 2 && !text.contains(':')
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn verb_and_resource_are_found_in_the_api_servers_words() {
        let said = "pods \"web-1\" is forbidden: User \"kubervisor\" cannot patch resource \"pods\" in API group \"\" \
                    in the namespace \"shop\"";
        assert_eq!(missing(said).as_deref(), Some("patch pods"));
        let said = "kubervisorservices.kubervisor.k8s.io \"web\" is forbidden: User \"kubervisor\" cannot update resource \
                    \"kubervisorservices/status\" in API group \"kubervisor.k8s.io\" in the namespace \"shop\"";
        assert_eq!(missing(said).as_deref(), Some("update kubervisorservices/status"));
        let said = "pods is forbidden: User \"a b\" cannot watch resource \"pods\" in API group \"\" at the cluster scope";
        assert_eq!(missing(said).as_deref(), Some("watch pods"));
    }

    #[test]
    fn other_refusals_name_no_right() {
        for said in
            ["", "exceeded quota", "you cannot do that", "a webhook cannot be reached: resource \"x\""]
        {
            assert_eq!(missing(said), None, "{said}");
        }
    }
}
