//! Waiting for a condition with a deadline: the only way tests here let time pass.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Calls `probe` until it returns `Ok`, at most for `deadline`.
///
/// An `Err` of the probe says what is still missing. When time is up the error holds `what`, the deadline and the
/// probe's last error, so a failed test shows how far things got.
pub async fn wait_for<T, P, F>(what: &str, deadline: Duration, mut probe: P) -> Result<T>
where
    P: FnMut() -> F,
    F: Future<Output = Result<T>>,
{
    let end = Instant::now() + deadline;
    let mut pause = FIRST_PAUSE;
    loop {
        // A probe that hangs must not outlive the deadline either.
        let left = end.saturating_duration_since(Instant::now()).max(FIRST_PAUSE);
        let missing = match tokio::time::timeout(left, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => anyhow!("the check itself did not return"),
        };
        if Instant::now() + pause >= end {
            return Err(missing.context(format!("waited {deadline:?} for {what}; last seen")));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_comes_true_ends_the_wait() {
        let mut left = 3;
        let value = wait_for("the count", Duration::from_secs(5), || {
            left -= 1;
            let done = left == 0;
            async move { if done { Ok(7) } else { Err(anyhow!("not yet")) } }
        });
        assert_eq!(value.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_failure_says_what_was_awaited_and_what_was_seen_last() {
        let never = wait_for("rain", Duration::from_millis(50), || async {
            Err::<(), _>(anyhow!("sun"))
        });
        let text = format!("{:#}", never.await.unwrap_err());
        assert!(text.contains("rain") && text.contains("sun"), "{text}");
    }
}
