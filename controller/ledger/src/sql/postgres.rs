//! A connection to `PostgreSQL`: statements translated and kept, values on their way.

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error as StdError;

use bytes::BytesMut;
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Statement};

use super::{Result, Value};

/// Statements that are kept at most; there are fewer texts of statements than this.
const KEPT: usize = 1024;

/// A connection, used by one thread at a time.
pub(crate) struct Session {
    client: RefCell<Client>,
    statements: RefCell<HashMap<String, Statement>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// With an open connection.
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client: RefCell::new(client),
            statements: RefCell::default(),
        }
    }

    /// The connection is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.borrow().is_closed()
    }

    /// Runs statements without parameters in one round trip.
    pub(super) fn batch(&self, sql: &str) -> Result<()> {
        Ok(self.client.borrow_mut().batch_execute(sql)?)
    }

    /// A statement, prepared when it is first needed.
    pub(super) fn prepare(&self, sql: &str) -> Result<Statement> {
        if let Some(known) = self.statements.borrow().get(sql) {
            return Ok(known.clone());
        }
        let statement = self.client.borrow_mut().prepare(&translated(sql))?;
        let mut statements = self.statements.borrow_mut();
        if statements.len() >= KEPT {
            statements.clear();
        }
        statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    pub(super) fn execute(&self, statement: &Statement, values: &[Value<'_>]) -> Result<usize> {
        let changed = self.client.borrow_mut().execute(statement, &parameters(values))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    pub(super) fn query(&self, statement: &Statement, values: &[Value<'_>]) -> Result<Vec<postgres::Row>> {
        Ok(self.client.borrow_mut().query(statement, &parameters(values))?)
    }
}

fn parameters<'v>(values: &'v [Value<'v>]) -> Vec<&'v (dyn ToSql + Sync)> {
    values.iter().map(|v| v as &(dyn ToSql + Sync)).collect()
}

/// A statement as `PostgreSQL` wants it: `$1` for `?1`, and without the words that lead `SQLite` its way.
fn translated(sql: &str) -> String {
    let mut words = sql.split_inclusive(char::is_whitespace).peekable();
    let mut out = String::with_capacity(sql.len());
    while let Some(word) = words.next() {
        match (word.trim_end(), words.peek().map(|next| next.trim_end())) {
            ("INDEXED", Some("BY")) => {
                words.next();
                // The index; what closes a parenthesis behind it stays.
                let index = words.next().unwrap_or_default();
                out.push_str(index.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'));
            }
            ("CROSS", Some("JOIN")) => {}
            _ => out.push_str(&word.replace('?', "$")),
        }
    }
    out
}

impl ToSql for Value<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> std::result::Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match (*self, ty) {
            (Value::Null, _) => Ok(IsNull::Yes),
            (Value::Integer(number), &Type::BOOL) => (number != 0).to_sql(ty, out),
            (Value::Integer(number), &Type::INT4) => i32::try_from(number)?.to_sql(ty, out),
            (Value::Integer(number), &Type::INT8) => number.to_sql(ty, out),
            // There is no NUL in PostgreSQL's text.
            (Value::Text(text), &Type::TEXT) if text.contains('\0') => text.replace('\0', "\u{fffd}").to_sql(ty, out),
            (Value::Text(text), &Type::TEXT) => text.to_sql(ty, out),
            (Value::Blob(bytes), &Type::BYTEA) => bytes.to_sql(ty, out),
            (_, ty) => Err(format!("a parameter is no {ty}").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'r> FromSql<'r> for Value<'r> {
    fn from_sql(ty: &Type, raw: &'r [u8]) -> std::result::Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(match *ty {
            Type::BOOL => Value::Integer(bool::from_sql(ty, raw)?.into()),
            Type::INT4 => Value::Integer(i32::from_sql(ty, raw)?.into()),
            Type::INT8 => Value::Integer(i64::from_sql(ty, raw)?),
            Type::TEXT => Value::Text(<&str>::from_sql(ty, raw)?),
            _ => Value::Blob(raw),
        })
    }

    fn from_sql_null(_: &Type) -> std::result::Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Value::Null)
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::BOOL | Type::INT4 | Type::INT8 | Type::TEXT | Type::BYTEA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_directions_are_translated() {
        assert_eq!(
            translated("SELECT a FROM t INDEXED BY t_a\n    CROSS JOIN u ON u.a = ?1 WHERE (x = ?12)"),
            "SELECT a FROM t \n    JOIN u ON u.a = $1 WHERE (x = $12)"
        );
        assert_eq!(translated("(SELECT 1 FROM t INDEXED BY t_a)"), "(SELECT 1 FROM t )");
    }
}
