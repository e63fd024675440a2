//! Lists over HTTP: repositories, tags, and what is about a manifest.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::json;
use serde_json::value::RawValue;

use super::Shared;
use super::answer::{Answer, Code, Refusal, With, json};
use super::limits::{LIST_MAX, REFERRERS_MAX};
use super::route::Query;
use super::sessions::blocking;
use crate::digest::ContentDigest;
use crate::manifest::OCI_INDEX;
use crate::name::RepositoryName;
use crate::query::encode;

/// `GET` of the repositories.
pub(crate) async fn repositories(shared: &Shared, query: &Query) -> Result<Answer, Refusal> {
    let count = query.count(LIST_MAX)?;
    let (storage, last) = (Arc::clone(&shared.storage), query.get("last").map(str::to_owned));
    let page = blocking(move || storage.repositories(last.as_deref(), count)).await?;
    let answer = json(StatusCode::OK, &json!({ "repositories": page.items }));
    Ok(match page.next {
        Some(last) => linked(answer, &format!("/v2/_catalog?n={count}&last={}", encode(&last))),
        None => answer,
    })
}

/// `GET` of the tags of a repository.
pub(crate) async fn tags(shared: &Shared, name: RepositoryName, query: &Query) -> Result<Answer, Refusal> {
    let count = query.count(LIST_MAX)?;
    let (storage, last) = (Arc::clone(&shared.storage), query.get("last").map(str::to_owned));
    let of = name.clone();
    let page = blocking(move || storage.tags(&of, last.as_deref(), count)).await?;
    let unknown = || Refusal::missing(Code::NameUnknown, format!("there is no repository {name}"));
    let page = page.ok_or_else(unknown)?;
    let answer = json(StatusCode::OK, &json!({ "name": name.as_str(), "tags": page.items }));
    Ok(match page.next {
        Some(last) => linked(answer, &format!("/v2/{name}/tags/list?n={count}&last={}", encode(&last))),
        None => answer,
    })
}

/// `GET` of what is about a manifest.
pub(crate) async fn referrers(
    shared: &Shared,
    name: RepositoryName,
    digest: ContentDigest,
    query: &Query,
) -> Result<Answer, Refusal> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index {
        schema_version: u32,
        media_type: &'static str,
        manifests: Vec<Box<RawValue>>,
    }
    let count = query.count(REFERRERS_MAX)?;
    let storage = Arc::clone(&shared.storage);
    let owned = |name| query.get(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let (kind, last) = (owned("artifactType"), owned("last"));
    let (of, about, filter) = (name.clone(), digest.clone(), kind.clone());
    let page =
        blocking(move || storage.referrers(&of, &about, filter.as_deref(), last.as_deref(), count)).await?;
    let index = Index { schema_version: 2, media_type: OCI_INDEX, manifests: page.items };
    let mut answer = json(StatusCode::OK, &index).with("content-type", OCI_INDEX);
    let mut filter = String::new();
    if let Some(kind) = kind {
        answer = answer.with("oci-filters-applied", "artifactType");
        filter = format!("artifactType={}&", encode(&kind));
    }
    Ok(match page.next {
        Some(last) => {
            linked(answer, &format!("/v2/{name}/referrers/{digest}?{filter}n={count}&last={}", encode(&last)))
        }
        None => answer,
    })
}

/// By RFC 8288.
fn linked(answer: Answer, next: &str) -> Answer {
    answer.with("link", format!("<{next}>; rel=\"next\""))
}
