//! Types: what a variable declares, what values convert to, and what two branches have in common.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::diagnostic::{Problem, Problems};
use crate::number::Number;
use crate::syntax::{Expr, ExprKind};
use crate::value::{Kind, MapKind, SeqKind, TooLarge, Value};

/// A type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Type {
    /// Anything, or nothing known: the elements of `[]`.
    Any,
    Bool,
    Number,
    String,
    List(Box<Type>),
    Set(Box<Type>),
    Map(Box<Type>),
    Tuple(Vec<Type>),
    Object(BTreeMap<Arc<str>, Field>),
    /// What a block declares.
    Reference(&'static str),
}

/// An attribute of an object type.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) ty: Type,
    pub(crate) optional: bool,
    /// What it is when it isn't set.
    pub(crate) default: Option<Value>,
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.ty == other.ty && self.optional == other.optional
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Bool => f.write_str("bool"),
            Self::Number => f.write_str("number"),
            Self::String => f.write_str("string"),
            Self::List(inner) => write!(f, "list({inner})"),
            Self::Set(inner) => write!(f, "set({inner})"),
            Self::Map(inner) => write!(f, "map({inner})"),
            Self::Tuple(items) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                write!(f, "tuple([{}])", items.join(", "))
            }
            Self::Object(fields) => {
                let field = |(name, field): (&Arc<str>, &Field)| match field.optional {
                    true => format!("{name} = optional({})", field.ty),
                    false => format!("{name} = {}", field.ty),
                };
                let fields: Vec<String> = fields.iter().map(field).collect();
                write!(f, "object({{{}}})", fields.join(", "))
            }
            Self::Reference(kind) => f.write_str(kind),
        }
    }
}

impl Type {
    /// The type of a value.
    pub(crate) fn of(value: &Value) -> Self {
        match &value.kind {
            Kind::Null => Self::Any,
            Kind::Bool(_) => Self::Bool,
            Kind::Number(_) => Self::Number,
            Kind::String(_) => Self::String,
            Kind::Seq(seq) => {
                let inner = || Box::new(seq.items.first().map_or(Self::Any, Self::of));
                match seq.kind {
                    SeqKind::Tuple => Self::Tuple(seq.items.iter().map(Self::of).collect()),
                    SeqKind::List => Self::List(inner()),
                    SeqKind::Set => Self::Set(inner()),
                }
            }
            Kind::Map(map) => match map.kind {
                MapKind::Map => Self::Map(Box::new(map.items.values().next().map_or(Self::Any, Self::of))),
                MapKind::Object => {
                    let field = |(name, value): (&Arc<str>, &Value)| {
                        let ty = Self::of(value);
                        (name.clone(), Field { ty, optional: false, default: None })
                    };
                    Self::Object(map.items.iter().map(field).collect())
                }
            },
            Kind::Ref(reference) => Self::Reference(reference.kind),
        }
    }

    /// The type that both convert to, as for the branches of a conditional.
    pub(crate) fn unify(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (a, b) if a == b => Some(a.clone()),
            (Self::Any, b) => Some(b.clone()),
            (a, Self::Any) => Some(a.clone()),
            (Self::String, Self::Number | Self::Bool) | (Self::Number | Self::Bool, Self::String) => {
                Some(Self::String)
            }
            (Self::List(a), Self::List(b)) => Some(Self::List(Box::new(a.unify(b)?))),
            (Self::Set(a), Self::Set(b)) => Some(Self::Set(Box::new(a.unify(b)?))),
            (Self::Map(a), Self::Map(b)) => Some(Self::Map(Box::new(a.unify(b)?))),
            (Self::Tuple(a), Self::Tuple(b)) => {
                if a.len() == b.len() {
                    let items: Option<Vec<_>> = a.iter().zip(b).map(|(a, b)| a.unify(b)).collect();
                    if let Some(items) = items {
                        return Some(Self::Tuple(items));
                    }
                }
                Some(Self::List(Box::new(unify_all(a.iter().chain(b))?)))
            }
            (Self::List(a) | Self::Set(a), Self::Tuple(b))
            | (Self::Tuple(b), Self::List(a) | Self::Set(a)) => {
                let inner = unify_all(std::iter::once(&**a).chain(b))?;
                let is_set = matches!(self, Self::Set(_)) || matches!(other, Self::Set(_));
                Some(if is_set { Self::Set(Box::new(inner)) } else { Self::List(Box::new(inner)) })
            }
            (Self::List(a), Self::Set(b)) | (Self::Set(b), Self::List(a)) => {
                Some(Self::List(Box::new(a.unify(b)?)))
            }
            (Self::Object(a), Self::Object(b)) => unify_objects(a, b),
            (Self::Map(a), Self::Object(b)) | (Self::Object(b), Self::Map(a)) => {
                let fields = b.values().map(|f| &f.ty);
                Some(Self::Map(Box::new(unify_all(std::iter::once(&**a).chain(fields))?)))
            }
            _ => None,
        }
    }

    /// Converts a value.
    ///
    /// # Errors
    /// In words, with the path into the value; never with content.
    pub(crate) fn convert(&self, value: Value) -> Result<Value, String> {
        let (origin, marks) = (value.origin, value.marks.clone());
        let converted = self.convert_plain(value)?;
        Ok(converted.at(origin).marked(&marks))
    }

    fn convert_plain(&self, value: Value) -> Result<Value, String> {
        let mismatch =
            |value: &Value| Err(format!("expected {}, found {}", self.with_article(), value.describe()));
        match (self, &value.kind) {
            (Self::Any, _) | (_, Kind::Null) => Ok(value),
            (Self::Bool, Kind::Bool(_))
            | (Self::Number, Kind::Number(_))
            | (Self::String, Kind::String(_)) => Ok(value),
            (Self::Bool, Kind::String(text)) => match &**text {
                "true" => Ok(Value::bool(true)),
                "false" => Ok(Value::bool(false)),
                _ => mismatch(&value),
            },
            (Self::Number, Kind::String(text)) => match Number::parse(text) {
                Some(number) => Ok(Value::number(number)),
                None => mismatch(&value),
            },
            (Self::String, Kind::Bool(b)) => Ok(Value::string(if *b { "true" } else { "false" })),
            (Self::String, Kind::Number(n)) => Ok(Value::string(n.to_string())),
            (Self::List(inner), Kind::Seq(seq)) => {
                Value::list(convert_items(inner, &seq.items)?).map_err(too_large)
            }
            (Self::Set(inner), Kind::Seq(seq)) => {
                Value::set(convert_items(inner, &seq.items)?).map_err(too_large)
            }
            (Self::Map(inner), Kind::Map(map)) => {
                let element = common(inner, map.items.values())?;
                let item = |(key, item): (&Arc<str>, &Value)| {
                    let item = element.convert(item.clone()).map_err(|e| format!("at \"{key}\": {e}"))?;
                    Ok((key.clone(), item))
                };
                let items: Result<_, String> = map.items.iter().map(item).collect();
                Value::map(MapKind::Map, items?).map_err(too_large)
            }
            (Self::Tuple(types), Kind::Seq(seq)) if seq.kind != SeqKind::Set => {
                if types.len() != seq.items.len() {
                    return Err(format!("expected {} elements, found {}", types.len(), seq.items.len()));
                }
                let pairs = types.iter().zip(&seq.items).enumerate();
                let item = |(i, (ty, item)): (usize, (&Self, &Value))| {
                    ty.convert(item.clone()).map_err(|e| format!("at element {i}: {e}"))
                };
                let items: Result<_, String> = pairs.map(item).collect();
                Value::tuple(items?).map_err(too_large)
            }
            (Self::Object(fields), Kind::Map(map)) => convert_object(fields, &map.items),
            (Self::Reference(kind), Kind::Ref(reference)) if reference.kind == *kind => Ok(value),
            _ => mismatch(&value),
        }
    }

    /// For messages: `a number`, `a list of string`.
    pub(crate) fn with_article(&self) -> String {
        match self {
            Self::Any => "a value".into(),
            Self::List(inner) if **inner == Self::Any => "a list".into(),
            Self::Map(inner) if **inner == Self::Any => "a map".into(),
            Self::Set(inner) if **inner == Self::Any => "a set".into(),
            Self::Object(_) => format!("an {self}"),
            other => format!("a {other}"),
        }
    }
}

fn unify_objects(a: &BTreeMap<Arc<str>, Field>, b: &BTreeMap<Arc<str>, Field>) -> Option<Type> {
    if a.len() == b.len() && a.keys().eq(b.keys()) {
        let field = |((name, a), b): ((&Arc<str>, &Field), &Field)| {
            let ty = a.ty.unify(&b.ty)?;
            Some((name.clone(), Field { ty, optional: false, default: None }))
        };
        if let Some(fields) = a.iter().zip(b.values()).map(field).collect() {
            return Some(Type::Object(fields));
        }
    }
    Some(Type::Map(Box::new(unify_all(a.values().chain(b.values()).map(|f| &f.ty))?)))
}

pub(crate) fn unify_all<'a>(types: impl Iterator<Item = &'a Type>) -> Option<Type> {
    let mut unified = Type::Any;
    for ty in types {
        unified = unified.unify(ty)?;
    }
    Some(unified)
}

/// The element type to convert to: the declared one, or what the elements have in common.
fn common<'a>(inner: &Type, items: impl Iterator<Item = &'a Value>) -> Result<Type, String> {
    if *inner != Type::Any {
        return Ok(inner.clone());
    }
    let types: Vec<Type> = items.map(Type::of).collect();
    unify_all(types.iter()).ok_or_else(|| "the elements have no type in common".into())
}

fn convert_items(inner: &Type, items: &[Value]) -> Result<Vec<Value>, String> {
    let element = common(inner, items.iter())?;
    let item = |(i, item): (usize, &Value)| {
        element.convert(item.clone()).map_err(|e| format!("at element {i}: {e}"))
    };
    items.iter().enumerate().map(item).collect()
}

fn convert_object(
    fields: &BTreeMap<Arc<str>, Field>,
    items: &BTreeMap<Arc<str>, Value>,
) -> Result<Value, String> {
    let mut out = BTreeMap::new();
    for (name, field) in fields {
        let item = match items.get(name) {
            Some(item) if !(item.is_null() && field.default.is_some()) => {
                field.ty.convert(item.clone()).map_err(|e| format!("at \"{name}\": {e}"))?
            }
            _ if field.optional => field.default.clone().unwrap_or_else(Value::null),
            _ => return Err(format!("attribute \"{name}\" is missing")),
        };
        out.insert(name.clone(), item);
    }
    Value::object(out).map_err(too_large)
}

fn too_large(_: TooLarge) -> String {
    "the value is too large".into()
}

/// Reads a type as `variable` declares it. `default` evaluates the default of an `optional`.
pub(crate) fn parse_type(
    expr: &Expr,
    default: &dyn Fn(&Expr) -> Result<Value, Problems>,
) -> Result<Type, Problems> {
    let bad = |message: String| {
        let help = "types are string, number, bool, any, list(…), set(…), map(…), object({…}) and tuple([…])";
        Err(vec![Problem::new("invalid-type", expr.span, message).help(help)])
    };
    let name = match &expr.kind {
        ExprKind::Variable(name) => name,
        ExprKind::String(name) => return bad(format!("the type is written without quotes: {name}")),
        ExprKind::Call(call) => return parse_collection(expr, call, default),
        _ => return bad("this is not a type".into()),
    };
    match &**name {
        "any" => Ok(Type::Any),
        "bool" => Ok(Type::Bool),
        "number" => Ok(Type::Number),
        "string" => Ok(Type::String),
        "list" | "set" | "map" => {
            bad(format!("`{name}` needs the type of its elements, as in `{name}(string)`"))
        }
        "int" | "integer" | "float" => bad(format!("there is no type `{name}`; did you mean `number`?")),
        "boolean" => bad("there is no type `boolean`; did you mean `bool`?".into()),
        other => bad(format!("there is no type `{other}`")),
    }
}

fn parse_collection(
    expr: &Expr,
    call: &crate::syntax::Call,
    default: &dyn Fn(&Expr) -> Result<Value, Problems>,
) -> Result<Type, Problems> {
    let bad = |message: &str| Err(vec![Problem::new("invalid-type", expr.span, message)]);
    let [arg] = &call.args[..] else {
        return bad("this type takes exactly one argument");
    };
    match (&*call.name, &arg.kind) {
        ("list", _) => Ok(Type::List(Box::new(parse_type(arg, default)?))),
        ("set", _) => Ok(Type::Set(Box::new(parse_type(arg, default)?))),
        ("map", _) => Ok(Type::Map(Box::new(parse_type(arg, default)?))),
        ("tuple", ExprKind::Tuple(items)) => {
            Ok(Type::Tuple(items.iter().map(|i| parse_type(i, default)).collect::<Result<_, _>>()?))
        }
        ("tuple", _) => bad("`tuple` takes a list of types, as in `tuple([string, number])`"),
        ("object", ExprKind::Object(items)) => {
            let mut fields = BTreeMap::new();
            for (key, value) in items {
                let Some(name) = key.as_literal() else {
                    return bad("the names of an object type are plain words");
                };
                fields.insert(name.into(), parse_field(value, default)?);
            }
            Ok(Type::Object(fields))
        }
        ("object", _) => bad("`object` takes names and types, as in `object({ name = string })`"),
        ("optional", _) => bad("`optional` stands within `object({…})` only"),
        (other, _) => bad(&format!("there is no type `{other}(…)`")),
    }
}

fn parse_field(expr: &Expr, default: &dyn Fn(&Expr) -> Result<Value, Problems>) -> Result<Field, Problems> {
    let ExprKind::Call(call) = &expr.kind else {
        return Ok(Field { ty: parse_type(expr, default)?, optional: false, default: None });
    };
    if &*call.name != "optional" {
        return Ok(Field { ty: parse_type(expr, default)?, optional: false, default: None });
    }
    let (ty, value) = match &call.args[..] {
        [ty] => (ty, None),
        [ty, value] => (ty, Some(value)),
        _ => {
            let message = "`optional` takes a type and maybe a default";
            return Err(vec![Problem::new("invalid-type", expr.span, message)]);
        }
    };
    let ty = parse_type(ty, default)?;
    let default = match value {
        None => None,
        Some(value) => {
            let converted = ty.convert(default(value)?);
            Some(converted.map_err(|e| {
                vec![Problem::new("wrong-type", value.span, format!("the default does not fit: {e}"))]
            })?)
        }
    };
    Ok(Field { ty, optional: true, default })
}
