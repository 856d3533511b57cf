//! Traces arrive at a collector, where they are switched on.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use certwave_e2e::stack::Stack;
use certwave_e2e::wait_for;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;

use crate::faults::world::{SOON, World};
use crate::shared;

/// What came, by the service that sent it.
type Spans = Arc<Mutex<Vec<(String, Span)>>>;

fn text(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    };
    let all = attributes.iter();
    all.filter_map(|attribute| Some((attribute.key.clone(), text(&attribute.value)?)))
        .collect()
}

/// Takes what an OTLP exporter sends over HTTP.
async fn collect(State(spans): State<Spans>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    for resource in request.resource_spans {
        let about = resource.resource.unwrap_or_default();
        let service = text(&about.attributes).remove("service.name").unwrap_or_default();
        let found = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.lock().unwrap().extend(found.map(|span| (service.clone(), span)));
    }
}

#[tokio::test]
async fn a_collector_gets_a_trace_of_each_message_with_what_was_done_for_it() {
    let spans = Spans::default();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let collector = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new()
        .route("/v1/traces", post(collect))
        .with_state(Arc::clone(&spans));
    tokio::spawn(async move { axum::serve(listener, app).await });

    let mut stack = Stack::on(shared::api().await, "traces").await.unwrap();
    stack.trace_to(collector);
    let mut world = World::on(stack, 2).await;
    world.enrol("m", 2, &[]).await;
    // What is left is sent at the end.
    world.stack.stop_controller().unwrap();

    let found = wait_for("the traces", SOON, || async {
        let spans = spans.lock().unwrap();
        let message = |kind: &str| {
            let found = spans.iter().find(|(_, span)| {
                span.name == "message" && text(&span.attributes).get("kind").is_some_and(|found| found == kind)
            });
            found.with_context(|| format!("no span of {kind} among {}", spans.len()))
        };
        let (service, enrol) = message("enrol")?;
        let attributes = text(&enrol.attributes);
        ensure!(
            service == "certwave" && attributes["outcome"] == "ok",
            "{service}: {attributes:?}"
        );
        for done in ["issue", "record"] {
            let within = spans.iter().any(|(_, span)| {
                span.name == done && span.trace_id == enrol.trace_id && span.parent_span_id == enrol.span_id
            });
            ensure!(within, "no {done} for the message");
        }
        ensure!(spans.iter().any(|(_, span)| span.name == "crl"), "no CRL");
        Ok(())
    });
    world.told(found.await);
}
