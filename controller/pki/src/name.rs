//! Subjects and subject alternative names, checked before they enter a certificate.

use std::{fmt, net::IpAddr, str::FromStr};

use rcgen::{DistinguishedName, DnType, DnValue, SanType};

/// Upper bound of a common name, organisation or unit, in characters (RFC 5280, appendix A.1).
const MAX_NAME: usize = 64;
/// Upper bound of a locality or state, in characters.
const MAX_PLACE: usize = 128;
/// The longest URI or mail address that is put into a certificate, in bytes.
const MAX_URI: usize = 512;

/// Why a name cannot stand in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// Longer than X.509 allows.
    #[error("{field} has {length} characters; at most {limit} are allowed")]
    TooLong {
        /// Which part of the name.
        field: &'static str,
        /// How long it is, in characters.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
    /// Characters or a form that the field does not allow.
    #[error("{field} {value:?} is not valid: {why}")]
    Invalid {
        /// Which part of the name.
        field: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl NameError {
    /// A short name from a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Empty(_) => "empty",
            Self::TooLong { .. } => "too-long",
            Self::Invalid { .. } => "invalid",
        }
    }
}

/// An attribute of a subject besides the common name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttributeType {
    /// `C`: two capital letters (ISO 3166).
    Country,
    /// `ST`
    State,
    /// `L`
    Locality,
    /// `O`
    Organization,
    /// `OU`
    OrganizationalUnit,
    /// `serialNumber`: the device's, not the certificate's.
    SerialNumber,
}

impl AttributeType {
    const ALL: [Self; 6] = [
        Self::Country,
        Self::State,
        Self::Locality,
        Self::Organization,
        Self::OrganizationalUnit,
        Self::SerialNumber,
    ];

    /// The name used in a Fleet's template, for example `organizationalUnit`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Country => "country",
            Self::State => "state",
            Self::Locality => "locality",
            Self::Organization => "organization",
            Self::OrganizationalUnit => "organizationalUnit",
            Self::SerialNumber => "serialNumber",
        }
    }

    fn dn_type(self) -> DnType {
        match self {
            Self::Country => DnType::CountryName,
            Self::State => DnType::StateOrProvinceName,
            Self::Locality => DnType::LocalityName,
            Self::Organization => DnType::OrganizationName,
            Self::OrganizationalUnit => DnType::OrganizationalUnitName,
            Self::SerialNumber => DnType::CustomDnType(vec![2, 5, 4, 5]),
        }
    }

    /// Checks a value of this attribute and encodes it.
    pub(crate) fn value(self, value: &str) -> Result<DnValue, NameError> {
        let limit = match self {
            Self::Country => 2,
            Self::State | Self::Locality => MAX_PLACE,
            Self::Organization | Self::OrganizationalUnit | Self::SerialNumber => MAX_NAME,
        };
        check(self.as_str(), value, limit)?;
        let invalid = |why| NameError::Invalid {
            field: self.as_str(),
            value: value.to_owned(),
            why,
        };
        match self {
            Self::Country => {
                if value.len() != 2 || !value.bytes().all(|b| b.is_ascii_uppercase()) {
                    return Err(invalid("two capital letters are needed"));
                }
                printable(value).ok_or_else(|| invalid("two capital letters are needed"))
            }
            Self::SerialNumber => {
                printable(value).ok_or_else(|| invalid("it has a character that PrintableString lacks"))
            }
            _ => Ok(DnValue::Utf8String(value.to_owned())),
        }
    }
}

impl fmt::Display for AttributeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AttributeType {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::ALL
            .into_iter()
            .find(|a| a.as_str() == name)
            .ok_or_else(|| NameError::Invalid {
                field: "subject attribute",
                value: name.to_owned(),
                why: "known are country, state, locality, organization, organizationalUnit and serialNumber",
            })
    }
}

fn printable(value: &str) -> Option<DnValue> {
    value.try_into().ok().map(DnValue::PrintableString)
}

/// A value of 1 to `limit` characters, none of them a control character, without blanks around it.
fn check(field: &'static str, value: &str, limit: usize) -> Result<(), NameError> {
    if value.is_empty() {
        return Err(NameError::Empty(field));
    }
    let length = value.chars().count();
    if length > limit {
        return Err(NameError::TooLong { field, length, limit });
    }
    let invalid = |why| {
        Err(NameError::Invalid {
            field,
            value: value.to_owned(),
            why,
        })
    };
    if value.chars().any(char::is_control) {
        return invalid("control characters are not allowed");
    }
    if value.trim() != value {
        return invalid("blanks around it are not allowed");
    }
    Ok(())
}

/// The subject of a certificate authority.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaSubject {
    /// `CN`, 1 to 64 characters.
    pub common_name: String,
    /// `O`, 1 to 64 characters.
    pub organization: Option<String>,
    /// `OU`, 1 to 64 characters.
    pub organizational_unit: Option<String>,
    /// `C`, two capital letters.
    pub country: Option<String>,
}

impl CaSubject {
    /// A subject of a common name only.
    pub fn named(common_name: impl Into<String>) -> Self {
        Self {
            common_name: common_name.into(),
            ..Self::default()
        }
    }

    pub(crate) fn distinguished_name(&self) -> Result<DistinguishedName, NameError> {
        let attributes = [
            (AttributeType::Country, &self.country),
            (AttributeType::Organization, &self.organization),
            (AttributeType::OrganizationalUnit, &self.organizational_unit),
        ];
        distinguished_name(
            attributes
                .into_iter()
                .filter_map(|(kind, value)| value.as_deref().map(|value| (kind, value))),
            &self.common_name,
        )
    }
}

fn distinguished_name<'a>(
    attributes: impl Iterator<Item = (AttributeType, &'a str)>,
    common_name: &str,
) -> Result<DistinguishedName, NameError> {
    let mut name = DistinguishedName::new();
    for (kind, value) in attributes {
        name.push(kind.dn_type(), kind.value(value)?);
    }
    check("common name", common_name, MAX_NAME)?;
    name.push(DnType::CommonName, common_name);
    Ok(name)
}

/// The kind of a subject alternative name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SanKind {
    /// `dNSName`
    Dns,
    /// `uniformResourceIdentifier`
    Uri,
    /// `rfc822Name`
    Email,
    /// `iPAddress`
    Ip,
}

/// A subject alternative name (RFC 5280, 4.2.1.6) that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct San(SanType);

impl San {
    /// Checks and makes a name of `kind`.
    pub fn new(kind: SanKind, value: &str) -> Result<Self, NameError> {
        match kind {
            SanKind::Dns => Self::dns(value),
            SanKind::Uri => Self::uri(value),
            SanKind::Email => Self::email(value),
            SanKind::Ip => value.parse().map(Self::ip).map_err(|_| NameError::Invalid {
                field: "IP SAN",
                value: value.to_owned(),
                why: "an IPv4 or IPv6 address is needed",
            }),
        }
    }

    /// A DNS name: labels of letters, digits and inner hyphens, at most 253 characters; no wildcard, no final dot.
    pub fn dns(name: &str) -> Result<Self, NameError> {
        check("DNS SAN", name, 253)?;
        let invalid = |why| NameError::Invalid {
            field: "DNS SAN",
            value: name.to_owned(),
            why,
        };
        if !is_dns_name(name) {
            return Err(invalid("each label needs 1 to 63 letters, digits or inner hyphens"));
        }
        name.try_into()
            .map(|name| Self(SanType::DnsName(name)))
            .map_err(|_| invalid("it is not ASCII"))
    }

    /// An absolute URI with a host or path, at most 512 bytes of printable ASCII.
    pub fn uri(uri: &str) -> Result<Self, NameError> {
        check("URI SAN", uri, MAX_URI)?;
        let invalid = |why| NameError::Invalid {
            field: "URI SAN",
            value: uri.to_owned(),
            why,
        };
        let (scheme, rest) = uri.split_once(':').ok_or_else(|| invalid("a scheme is needed"))?;
        let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        if !scheme_ok || rest.is_empty() || rest == "//" {
            return Err(invalid("a scheme and a host or path are needed"));
        }
        // The characters of RFC 3986; anything else must be percent-encoded.
        if !rest
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&b))
        {
            return Err(invalid("it has a character that a URI lacks"));
        }
        uri.try_into()
            .map(|uri| Self(SanType::URI(uri)))
            .map_err(|_| invalid("it is not ASCII"))
    }

    /// A mail address: `local@host`.
    pub fn email(address: &str) -> Result<Self, NameError> {
        check("mail SAN", address, MAX_URI)?;
        let invalid = |why| NameError::Invalid {
            field: "mail SAN",
            value: address.to_owned(),
            why,
        };
        let local_ok = |local: &str| {
            !local.is_empty()
                && local.len() <= 64
                && local
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b))
        };
        match address.split_once('@') {
            Some((local, host)) if local_ok(local) && is_dns_name(host) => {}
            _ => return Err(invalid("local@host is needed")),
        }
        address
            .try_into()
            .map(|a| Self(SanType::Rfc822Name(a)))
            .map_err(|_| invalid("it is not ASCII"))
    }

    /// An IP address.
    pub const fn ip(address: IpAddr) -> Self {
        Self(SanType::IpAddress(address))
    }
}

fn is_dns_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// The subject and the alternative names of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafSubject {
    common_name: String,
    attributes: Vec<(AttributeType, String)>,
    sans: Vec<San>,
}

impl LeafSubject {
    /// A subject of a common name only, as for `~controller`, `~claim.<name>` and `~control.<brokerId>`.
    pub fn common_name(common_name: &str) -> Result<Self, NameError> {
        Self::new(common_name, Vec::new(), Vec::new())
    }

    /// A subject for a server: the common name and the names that clients connect to.
    pub fn server(common_name: &str, sans: Vec<San>) -> Result<Self, NameError> {
        Self::new(common_name, Vec::new(), sans)
    }

    pub(crate) fn new(
        common_name: &str,
        attributes: Vec<(AttributeType, String)>,
        sans: Vec<San>,
    ) -> Result<Self, NameError> {
        let subject = Self {
            common_name: common_name.to_owned(),
            attributes,
            sans,
        };
        subject.distinguished_name()?;
        Ok(subject)
    }

    /// The common name.
    pub fn cn(&self) -> &str {
        &self.common_name
    }

    pub(crate) fn distinguished_name(&self) -> Result<DistinguishedName, NameError> {
        distinguished_name(
            self.attributes.iter().map(|(kind, value)| (*kind, value.as_str())),
            &self.common_name,
        )
    }

    pub(crate) fn has_sans(&self) -> bool {
        !self.sans.is_empty()
    }

    pub(crate) fn san_types(&self) -> Vec<SanType> {
        self.sans.iter().map(|san| san.0.clone()).collect()
    }
}
