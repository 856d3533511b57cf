//! The live view: draws, looks again, hears the keyboard.

use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::{Watched, draw};
use crate::{Error, Result};

/// How long the thread that reads the keyboard waits before it looks whether anybody still listens.
const POLL: Duration = Duration::from_millis(200);

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    End,
    Up(u16),
    Down(u16),
    Redraw,
}

/// Draws until `q` or Ctrl-C. The terminal is put back as it was, whatever happens.
pub(super) async fn run(watched: &mut Watched<'_>, interval: Duration) -> Result<()> {
    // What is wrong from the start is said where it stays to be read.
    let first = watched.look().await?;
    let terminal = ratatui::try_init().map_err(Error::file("the terminal".as_ref()))?;
    let drawn = draw_on(terminal, watched, first, interval).await;
    ratatui::restore();
    drawn
}

async fn draw_on(
    mut terminal: ratatui::DefaultTerminal,
    watched: &mut Watched<'_>,
    mut frame: super::Frame,
    interval: Duration,
) -> Result<()> {
    let (keys, mut wished) = mpsc::channel(16);
    std::thread::spawn(move || read_keys(&keys));
    let mut again = tokio::time::interval(interval);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    again.tick().await;
    let (mut scroll, mut trouble) = (0_u16, None::<String>);
    loop {
        let mut lines = 0;
        let height = terminal
            .draw(|screen| lines = draw::screen(&frame, screen, scroll, trouble.as_deref()))
            .map_err(Error::file("the terminal".as_ref()))?
            .area
            .height;
        let last = lines.saturating_sub(height.saturating_sub(1));
        tokio::select! {
            _ = again.tick() => match watched.look().await {
                Ok(seen) => (frame, trouble) = (seen, None),
                // The last that was seen stays; a person who watches wants to go on when the API server is back.
                Err(error) => trouble = Some(error.to_string()),
            },
            wish = wished.recv() => match wish {
                None | Some(Wish::End) => return Ok(()),
                Some(Wish::Up(by)) => scroll = scroll.min(last).saturating_sub(by),
                Some(Wish::Down(by)) => scroll = scroll.saturating_add(by).min(last),
                Some(Wish::Redraw) => {}
            },
        }
    }
}

/// Reads the keyboard until nobody listens any more.
fn read_keys(wishes: &mpsc::Sender<Wish>) {
    while !wishes.is_closed() {
        match event::poll(POLL) {
            Ok(false) => {}
            Ok(true) => {
                let Ok(event) = event::read() else { return };
                if let Some(wish) = wish(&event)
                    && wishes.blocking_send(wish).is_err()
                {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

fn wish(event: &Event) -> Option<Wish> {
    let key = match event {
        Event::Resize(..) => return Some(Wish::Redraw),
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        _ => return None,
    };
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::End),
        // In raw mode Ctrl-C is a key like any other.
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::End),
        KeyCode::Up | KeyCode::Char('k') => Some(Wish::Up(1)),
        KeyCode::Down | KeyCode::Char('j') => Some(Wish::Down(1)),
        KeyCode::PageUp => Some(Wish::Up(10)),
        KeyCode::PageDown => Some(Wish::Down(10)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn q_and_ctrl_c_end_it() {
        let key = |code, modifiers| wish(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Wish::End));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Wish::End));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(wish(&Event::Resize(1, 1)), Some(Wish::Redraw));
    }
}
