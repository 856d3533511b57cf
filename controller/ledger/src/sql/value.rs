//! Values on their way to the database and back.

use rusqlite::types::{ToSqlOutput, ValueRef};

/// A value as the databases know it. Booleans are 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// None.
    Null,
    /// A number.
    Integer(i64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl<'a> TryFrom<ValueRef<'a>> for Value<'a> {
    type Error = String;
    fn try_from(value: ValueRef<'a>) -> Result<Self, String> {
        Ok(match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => Value::Integer(number),
            ValueRef::Text(text) => Value::Text(std::str::from_utf8(text).map_err(|e| e.to_string())?),
            ValueRef::Blob(bytes) => Value::Blob(bytes),
            ValueRef::Real(number) => return Err(format!("{number} is not a whole number")),
        })
    }
}

/// What can be stored.
pub(crate) trait ToSql {
    /// As a value.
    fn to_sql(&self) -> Value<'_>;
}

macro_rules! numbers {
    ($($type:ty)*) => { $(
        impl ToSql for $type {
            fn to_sql(&self) -> Value<'_> {
                Value::Integer(i64::from(*self))
            }
        }
    )* };
}
numbers!(bool u8 u32 i32 i64);

impl ToSql for str {
    fn to_sql(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl ToSql for String {
    fn to_sql(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl ToSql for [u8] {
    fn to_sql(&self) -> Value<'_> {
        Value::Blob(self)
    }
}

impl ToSql for Vec<u8> {
    fn to_sql(&self) -> Value<'_> {
        Value::Blob(self)
    }
}

impl<const N: usize> ToSql for [u8; N] {
    fn to_sql(&self) -> Value<'_> {
        Value::Blob(self)
    }
}

impl<T: ToSql> ToSql for Option<T> {
    fn to_sql(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, T::to_sql)
    }
}

impl<T: ToSql + ?Sized> ToSql for &T {
    fn to_sql(&self) -> Value<'_> {
        (**self).to_sql()
    }
}

/// What can be read; the error says why it cannot.
pub(crate) trait FromSql: Sized {
    /// From a value.
    fn from_sql(value: Value<'_>) -> Result<Self, String>;
}

fn unfit<T>(value: Value<'_>, wanted: &str) -> Result<T, String> {
    Err(match value {
        Value::Null => format!("{wanted} is missing"),
        Value::Integer(number) => format!("{number} is not {wanted}"),
        Value::Text(_) => format!("text is not {wanted}"),
        Value::Blob(bytes) => format!("{} bytes are not {wanted}", bytes.len()),
    })
}

impl FromSql for i64 {
    fn from_sql(value: Value<'_>) -> Result<Self, String> {
        match value {
            Value::Integer(number) => Ok(number),
            other => unfit(other, "a number"),
        }
    }
}

impl FromSql for u32 {
    fn from_sql(value: Value<'_>) -> Result<Self, String> {
        let number = i64::from_sql(value)?;
        number.try_into().or_else(|_| unfit(value, "a count"))
    }
}

impl FromSql for u8 {
    fn from_sql(value: Value<'_>) -> Result<Self, String> {
        let number = i64::from_sql(value)?;
        number.try_into().or_else(|_| unfit(value, "an octet"))
    }
}

impl FromSql for bool {
    fn from_sql(value: Value<'_>) -> Result<Self, String> {
        i64::from_sql(value).map(|number| number != 0)
    }
}

impl FromSql for String {
    fn from_sql(value: Value<'_>) -> Result<Self, String> {
        match value {
            Value::Text(text) => Ok(text.to_owned()),
            other => unfit(other, "text"),
        }
    }
}

impl FromSql for Vec<u8> {
    fn from_sql(value: Value<'_>) -> Result<Self, String> {
        match value {
            Value::Blob(bytes) => Ok(bytes.to_owned()),
            other => unfit(other, "bytes"),
        }
    }
}

impl<const N: usize> FromSql for [u8; N] {
    fn from_sql(value: Value<'_>) -> Result<Self, String> {
        match value {
            Value::Blob(bytes) => bytes.try_into().or_else(|_| unfit(value, &format!("{N} bytes"))),
            other => unfit(other, "bytes"),
        }
    }
}

impl<T: FromSql> FromSql for Option<T> {
    fn from_sql(value: Value<'_>) -> Result<Self, String> {
        match value {
            Value::Null => Ok(None),
            other => T::from_sql(other).map(Some),
        }
    }
}

/// A statement's parameters, in order.
pub(crate) trait Params {
    /// Their values.
    fn values(&self) -> Vec<Value<'_>>;
}

impl Params for &[&dyn ToSql] {
    fn values(&self) -> Vec<Value<'_>> {
        self.iter().map(|p| p.to_sql()).collect()
    }
}

impl Params for [&dyn ToSql; 0] {
    fn values(&self) -> Vec<Value<'_>> {
        Vec::new()
    }
}

/// One by one, lest the type of `[]` be open.
macro_rules! lists {
    ($($count:literal)*) => { $(
        impl<T: ToSql> Params for [T; $count] {
            fn values(&self) -> Vec<Value<'_>> {
                self.iter().map(T::to_sql).collect()
            }
        }
    )* };
}
lists!(1 2 3 4 5 6);

/// Parameters of different types.
macro_rules! params {
    ($($param:expr),* $(,)?) => {
        &[$(&$param as &dyn $crate::sql::ToSql),*] as &[&dyn $crate::sql::ToSql]
    };
}
pub(crate) use params;
