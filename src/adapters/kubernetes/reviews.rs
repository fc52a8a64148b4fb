//! Who a bearer token is, and which resources that user may get: asked of the API server, which alone knows.
//!
//! TokenReview and SubjectAccessReview need the rights `create` on `tokenreviews` and `subjectaccessreviews`, which only
//! `--view-addr` uses.

use std::time::Duration;

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};

use super::objects::Kind;
use crate::api::GROUP;

/// For one review.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the API server.
#[derive(Clone)]
pub struct Reviewer {
    tokens: Api<TokenReview>,
    access: Api<SubjectAccessReview>,
}

/// A user as the API server knows it.
#[derive(Clone, Debug)]
pub struct ReviewedUser(UserInfo);

/// Why a review has no result.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The API server refused or could not be reached.
    #[error(
        "the API server did not review the {what}; does this controller have the right to create {resource}?"
    )]
    Failed {
        /// What was to be reviewed.
        what: &'static str,
        /// The resource of the right that may be missing.
        resource: &'static str,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("the API server did not review the {0} within 5 s")]
    Late(&'static str),
}

impl Reviewer {
    /// Asks with the rights of `client`.
    pub fn new(client: Client) -> Self {
        Self { tokens: Api::all(client.clone()), access: Api::all(client) }
    }

    /// The user of a token; `None` for a token that is not valid.
    ///
    /// # Errors
    /// The API server has no answer.
    pub async fn user(&self, token: &str) -> Result<Option<ReviewedUser>, ReviewError> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviewed = posted(&self.tokens, &review, "token", "tokenreviews").await?;
        let status = reviewed.status.filter(|status| status.authenticated == Some(true));
        Ok(status.and_then(|status| status.user).map(ReviewedUser))
    }

    /// Whether the user may `get` the resources of a namespace; of all namespaces without one.
    ///
    /// # Errors
    /// The API server has no answer.
    pub async fn may_get(&self, user: &ReviewedUser, namespace: Option<&str>) -> Result<bool, ReviewError> {
        let user = user.0.clone();
        let spec = SubjectAccessReviewSpec {
            user: user.username,
            groups: user.groups,
            uid: user.uid,
            extra: user.extra,
            resource_attributes: Some(ResourceAttributes {
                group: Some(GROUP.to_owned()),
                resource: Some(Kind::KubervisorServices.resource().to_owned()),
                verb: Some("get".to_owned()),
                namespace: namespace.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviewed = posted(&self.access, &review, "access", "subjectaccessreviews").await?;
        Ok(reviewed.status.is_some_and(|status| status.allowed))
    }
}

async fn posted<K>(
    api: &Api<K>,
    review: &K,
    what: &'static str,
    resource: &'static str,
) -> Result<K, ReviewError>
where
    K: Clone + serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let posted = tokio::time::timeout(TIMEOUT, api.create(&PostParams::default(), review)).await;
    let posted = posted.map_err(|_| ReviewError::Late(what))?;
    posted.map_err(|source| ReviewError::Failed { what, resource, source: Box::new(source) })
}
