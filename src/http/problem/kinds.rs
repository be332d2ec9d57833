//! What callers can tell apart: a stable name, a status, and what they can do about it.

use axum::http::StatusCode;

/// What callers can tell apart, with its status. `slug` is stable: clients match on it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::http) struct Kind {
    pub(in crate::http) slug: &'static str,
    pub(in crate::http) status: StatusCode,
    pub(in crate::http) title: &'static str,
    /// What a caller can do about it; answered at `/problems/{slug}`.
    pub(in crate::http) advice: &'static str,
}

pub(super) const MODEL_NOT_FOUND: Kind = Kind {
    slug: "model-not-found",
    status: StatusCode::NOT_FOUND,
    title: "No such model",
    advice: "GET /v1/models lists the models that are served.",
};
pub(super) const NOT_FOUND: Kind = Kind {
    slug: "not-found",
    status: StatusCode::NOT_FOUND,
    title: "Nothing is served here",
    advice: "GET / lists the paths that are served.",
};
pub(super) const METHOD_NOT_ALLOWED: Kind = Kind {
    slug: "method-not-allowed",
    status: StatusCode::METHOD_NOT_ALLOWED,
    title: "The path is served, but not with this method",
    advice: "The detail and the Allow header of the answer name the methods of the path.",
};
pub(super) const ORIGIN_NOT_ALLOWED: Kind = Kind {
    slug: "origin-not-allowed",
    status: StatusCode::FORBIDDEN,
    title: "Pages of this origin may not call",
    advice: "Whoever runs the server can add the page's origin to the setting server.cors.",
};
pub(super) const REQUEST_TIMEOUT: Kind = Kind {
    slug: "request-timeout",
    status: StatusCode::REQUEST_TIMEOUT,
    title: "The body did not arrive in time",
    advice: "Send the body at once, or name a longer x-deadline-ms.",
};
pub(super) const MALFORMED: Kind = Kind {
    slug: "malformed",
    status: StatusCode::BAD_REQUEST,
    title: "The request cannot be read",
    advice: "The bytes are not what they claim to be: broken JSON, a broken image, a wrong parameter. The detail names it.",
};
pub(super) const TOO_LARGE: Kind = Kind {
    slug: "too-large",
    status: StatusCode::PAYLOAD_TOO_LARGE,
    title: "Larger than allowed",
    advice: "The detail names what was measured and its limit. Send less at once.",
};
pub(super) const UNSUPPORTED_MEDIA_TYPE: Kind = Kind {
    slug: "unsupported-media-type",
    status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
    title: "The format is not served",
    advice: "The detail names the formats that are.",
};
pub(super) const INVALID_INPUT: Kind = Kind {
    slug: "invalid-input",
    status: StatusCode::UNPROCESSABLE_ENTITY,
    title: "The right form with the wrong content",
    advice: "The request was understood, but what it asks cannot be answered. The detail names why.",
};
pub(super) const QUOTA: Kind = Kind {
    slug: "quota",
    status: StatusCode::TOO_MANY_REQUESTS,
    title: "The caller's quota is spent",
    advice: "Wait as long as the Retry-After header says.",
};
pub(super) const OVERLOADED: Kind = Kind {
    slug: "overloaded",
    status: StatusCode::SERVICE_UNAVAILABLE,
    title: "More work than can be done in time",
    advice: "Wait as long as the Retry-After header says, or ask another replica.",
};
pub(super) const DEADLINE_EXCEEDED: Kind = Kind {
    slug: "deadline-exceeded",
    status: StatusCode::GATEWAY_TIMEOUT,
    title: "The deadline passed",
    advice: "Name a longer x-deadline-ms, or ask again when there is less load.",
};
pub(super) const UNAVAILABLE: Kind = Kind {
    slug: "unavailable",
    status: StatusCode::SERVICE_UNAVAILABLE,
    title: "Not ready",
    advice: "The server or the model is loading or stopping. Ask again, or ask another replica.",
};
pub(super) const INTERNAL: Kind = Kind {
    slug: "internal",
    status: StatusCode::INTERNAL_SERVER_ERROR,
    title: "A fault of the server",
    advice: "The server's log has the cause under the request id.",
};

/// Every kind, in the order of the documentation.
pub(in crate::http) const KINDS: [Kind; 14] = [
    MODEL_NOT_FOUND,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    ORIGIN_NOT_ALLOWED,
    REQUEST_TIMEOUT,
    MALFORMED,
    TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    INVALID_INPUT,
    QUOTA,
    OVERLOADED,
    DEADLINE_EXCEEDED,
    UNAVAILABLE,
    INTERNAL,
];
