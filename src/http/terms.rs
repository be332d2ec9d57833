//! On which terms a request is served: its deadline, its class, and its balance of latency and cost.
//!
//! Invariant: what a caller says twice, or says wrongly, is refused; what it does not say is the model's
//! or the configuration's.

use std::{str::FromStr, time::Duration};

use axum::http::{HeaderMap, HeaderName};

use super::{extract::Parameters, problem::quote};
use crate::{config::PoolConfig, error::Error, manifest::Balance, pool::Class};

/// The header in which a caller names its deadline, in milliseconds.
static DEADLINE: HeaderName = HeaderName::from_static("x-deadline-ms");
/// The header that names the class; `?class=` says the same.
static CLASS: HeaderName = HeaderName::from_static("x-class");
/// The header that names the balance; `?balance=` says the same.
static BALANCE: HeaderName = HeaderName::from_static("x-balance");

/// On which terms a request is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// How long after its arrival the caller can still use the answer.
    pub(super) deadline: Duration,
    pub(super) class: Class,
    /// The model's own where it is absent.
    pub(super) balance: Option<Balance>,
}

impl Terms {
    /// Reads what headers and query say.
    pub(super) fn of(headers: &HeaderMap, parameters: &Parameters, pool: &PoolConfig) -> Result<Self, Error> {
        let class = either(headers, &CLASS, "class", parameters.class.as_deref())?;
        let balance = either(headers, &BALANCE, "balance", parameters.balance.as_deref())?;
        Ok(Self { deadline: deadline(headers, pool)?, class: class.unwrap_or_default(), balance })
    }
}

/// Reads what the header or the query parameter says; both may, if they agree.
fn either<T: FromStr<Err = String> + PartialEq>(
    headers: &HeaderMap,
    header: &'static HeaderName,
    parameter: &'static str,
    in_query: Option<&str>,
) -> Result<Option<T>, Error> {
    let parse = |name: &str, text: &str| {
        text.parse().map_err(|allowed| Error::malformed(format!("{name} is `{}`; {allowed}", quote(text))))
    };
    let mut values = headers.get_all(header).iter();
    let in_header = values.next().map(|value| String::from_utf8_lossy(value.as_bytes()));
    if values.next().is_some() {
        return Err(Error::malformed(format!("the header {header} is given twice; once is allowed")));
    }
    let in_header: Option<T> = in_header.map(|text| parse(header.as_str(), &text)).transpose()?;
    let in_query: Option<T> = in_query.map(|text| parse(parameter, text)).transpose()?;
    match (in_header, in_query) {
        (Some(one), Some(other)) if one != other => Err(Error::malformed(format!(
            "the header {header} and the query parameter {parameter} differ; one of them is enough"
        ))),
        (in_header, in_query) => Ok(in_header.or(in_query)),
    }
}

/// How long after its arrival the caller can still use the answer.
fn deadline(headers: &HeaderMap, pool: &PoolConfig) -> Result<Duration, Error> {
    let mut values = headers.get_all(&DEADLINE).iter();
    let Some(value) = values.next() else { return Ok(pool.deadline) };
    let most = pool.max_deadline.as_millis();
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|c| c.is_ascii_digit()));
    let ms: Option<u64> = digits.and_then(|text| text.parse().ok());
    match ms {
        Some(ms) if ms >= 1 && u128::from(ms) <= most && values.next().is_none() => {
            Ok(Duration::from_millis(ms))
        }
        _ => {
            let got = quote(&String::from_utf8_lossy(value.as_bytes()));
            Err(Error::malformed(format!(
                "{DEADLINE} is `{got}`; allowed is one whole number from 1 to {most}"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::config::Config;

    fn terms(headers: &[(&'static str, &'static str)], query: &str) -> Result<Terms, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let uri = format!("/?{query}").parse().unwrap();
        let parameters = Parameters::parse(&uri, &["class", "balance"]).unwrap();
        Terms::of(&map, &parameters, &Config::default().pool).map_err(|error| error.to_string())
    }

    #[test]
    fn a_deadline_is_the_callers_or_the_default() {
        let deadline = |headers: &[_]| terms(headers, "").map(|terms| terms.deadline);
        assert_eq!(deadline(&[]), Ok(Config::default().pool.deadline));
        assert_eq!(deadline(&[(DEADLINE.as_str(), "250")]), Ok(Duration::from_millis(250)));
        for bad in ["0", "-5", "+5", "1.5", "soon", "", "60001", "99999999999999999999999"] {
            let error = deadline(&[(DEADLINE.as_str(), bad)]).unwrap_err();
            assert!(error.ends_with("allowed is one whole number from 1 to 60000"), "{bad}: {error}");
        }
        assert!(deadline(&[(DEADLINE.as_str(), "5"), (DEADLINE.as_str(), "6")]).is_err());
    }

    #[test]
    fn class_and_balance_come_from_header_or_query() {
        let plain = terms(&[], "").unwrap();
        assert_eq!((plain.class, plain.balance), (Class::Interactive, None));
        let asked = terms(&[("x-class", "batch")], "balance=cheap").unwrap();
        assert_eq!((asked.class, asked.balance), (Class::Batch, Some(Balance::Cheap)));
        let agreed = terms(&[("x-balance", "balanced")], "balance=balanced").unwrap();
        assert_eq!(agreed.balance, Some(Balance::Balanced));
    }

    #[test]
    fn terms_that_are_wrong_or_differ_are_refused() {
        let text = |headers: &[_], query: &str| terms(headers, query).unwrap_err();
        insta::assert_snapshot!(text(&[("x-class", "bulk")], ""), @"x-class is `bulk`; allowed are interactive and batch");
        insta::assert_snapshot!(text(&[], "balance=Fast"), @"balance is `Fast`; allowed are fast, balanced and cheap");
        insta::assert_snapshot!(text(&[("x-balance", "fast")], "balance=cheap"), @"the header x-balance and the query parameter balance differ; one of them is enough");
        insta::assert_snapshot!(text(&[("x-class", "batch"), ("x-class", "batch")], ""), @"the header x-class is given twice; once is allowed");
    }
}
