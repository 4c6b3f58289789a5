//! A golden case, its tensors, and the rules by which a result is compared with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use longtake_worker::tensors::NamedTensor;
use longtake_worker::tensors::path::ModulePath;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Runs one case; the error says which tensors differ and by how much.
pub(crate) type Runner = fn(&Case) -> Result<(), String>;

/// One row of `manifest.json`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Entry {
    #[serde(rename = "case")]
    pub(crate) name: String,
    pub(crate) module: String,
    pub(crate) group: String,
}

/// Where the cases lie: inside the repository, or where `LONGTAKE_GOLDEN_DIR` says.
fn folder() -> PathBuf {
    std::env::var_os("LONGTAKE_GOLDEN_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/cases"), PathBuf::from)
}

/// All cases of the folder.
pub(crate) fn entries() -> Result<Vec<Entry>, String> {
    let path = folder().join("manifest.json");
    let text =
        std::fs::read_to_string(&path).map_err(|e| format!("`{}` cannot be read: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("`{}` is not a list of cases: {e}", path.display()))
}

/// Whether `module` is what a registry calls `name`: equal, or `name` followed by `*` matches what begins with it.
pub(crate) fn same_module(name: &str, module: &str) -> bool {
    name.strip_suffix('*').map_or(name == module, |beginning| module.starts_with(beginning))
}

/// Whether a published tensor is a table that we compute: the sinusoidal encoding.
pub(crate) fn computed(name: &str) -> bool {
    name.ends_with("pe.pe")
}

#[derive(Debug)]
enum Values {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

#[derive(Debug)]
struct Stored {
    shape: Vec<usize>,
    values: Values,
}

/// One golden case: its JSON and its tensors. A case that is a folder of JSON files has `folder` and no tensors.
#[derive(Debug)]
pub(crate) struct Case {
    /// Name in the manifest.
    pub(crate) name: String,
    /// `module` in the manifest.
    pub(crate) module: String,
    /// The case's JSON; `null` where the case is a folder.
    pub(crate) json: Value,
    /// The folder of a case that is one.
    pub(crate) folder: PathBuf,
    tensors: BTreeMap<String, Stored>,
}

impl Case {
    /// Reads a case from the folder of cases.
    pub(crate) fn load(entry: &Entry) -> Result<Self, String> {
        let root = folder();
        let mut case = Self {
            name: entry.name.clone(),
            module: entry.module.clone(),
            json: Value::Null,
            folder: root.join(&entry.name),
            tensors: BTreeMap::new(),
        };
        let path = root.join(format!("{}.json", entry.name));
        if path.exists() {
            let text = std::fs::read_to_string(&path).map_err(|e| format!("`{}`: {e}", path.display()))?;
            case.json = serde_json::from_str(&text).map_err(|e| format!("`{}`: {e}", path.display()))?;
        } else if !case.folder.is_dir() {
            return Err(format!("`{}` is neither a JSON file nor a folder", case.folder.display()));
        }
        let path = root.join(format!("{}.safetensors", entry.name));
        if path.exists() {
            let bytes = std::fs::read(&path).map_err(|e| format!("`{}`: {e}", path.display()))?;
            let file = SafeTensors::deserialize(&bytes).map_err(|e| format!("`{}`: {e}", path.display()))?;
            for (name, view) in file.tensors() {
                let values = read(view.dtype(), view.data()).ok_or_else(|| {
                    format!("`{name}` of `{}` has the unexpected type {:?}", path.display(), view.dtype())
                })?;
                case.tensors.insert(name, Stored { shape: view.shape().to_vec(), values });
            }
        }
        Ok(case)
    }

    fn stored(&self, name: &str) -> Result<&Stored, String> {
        self.tensors
            .get(name)
            .ok_or_else(|| format!("the case `{}` of `{}` has no tensor `{name}`", self.name, self.module))
    }

    /// Whether the case has this tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Names that begin with `prefix`, in order.
    pub(crate) fn names(&self, prefix: &str) -> Vec<&str> {
        self.tensors.keys().filter(|name| name.starts_with(prefix)).map(String::as_str).collect()
    }

    /// How many of `prefix0`, `prefix1`, ... there are.
    pub(crate) fn count(&self, prefix: &str) -> usize {
        (0..self.tensors.len()).take_while(|index| self.has(&format!("{prefix}{index}"))).count()
    }

    /// A tensor's shape.
    pub(crate) fn shape(&self, name: &str) -> Result<&[usize], String> {
        Ok(&self.stored(name)?.shape)
    }

    /// A tensor of floats, flat.
    pub(crate) fn floats(&self, name: &str) -> Result<&[f32], String> {
        match &self.stored(name)?.values {
            Values::Floats(values) => Ok(values),
            Values::Integers(_) => Err(format!("`{name}` holds integers")),
        }
    }

    /// A tensor of integers or booleans, flat.
    pub(crate) fn integers(&self, name: &str) -> Result<&[i64], String> {
        match &self.stored(name)?.values {
            Values::Integers(values) => Ok(values),
            Values::Floats(_) => Err(format!("`{name}` holds floats")),
        }
    }

    /// Pairs of floats, as segments.
    pub(crate) fn segments(&self, name: &str) -> Result<Vec<[f32; 2]>, String> {
        Ok(self.floats(name)?.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect())
    }

    /// A tensor on the device of the suite.
    pub(crate) fn tensor<const D: usize>(&self, name: &str) -> Result<Tensor<D>, String> {
        let shape: [usize; D] = self
            .shape(name)?
            .try_into()
            .map_err(|_| format!("`{name}` has the shape {:?}, not {D} axes", self.shape(name)))?;
        Ok(Tensor::from_data(TensorData::new(self.floats(name)?.to_vec(), shape), &device()))
    }

    /// A tensor whose gradient is asked for.
    pub(crate) fn leaf<const D: usize>(&self, name: &str) -> Result<Tensor<D>, String> {
        Ok(self.tensor::<D>(name)?.require_grad())
    }

    /// A value of the JSON by its path from the root, e.g. `/config/num_heads`.
    pub(crate) fn value(&self, pointer: &str) -> Result<&Value, String> {
        self.json.pointer(pointer).ok_or_else(|| format!("the case's JSON has no `{pointer}`"))
    }

    /// A value of the JSON by its path from the root, as what it is expected to be.
    pub(crate) fn parsed<T: DeserializeOwned>(&self, pointer: &str) -> Result<T, String> {
        serde_json::from_value(self.value(pointer)?.clone()).map_err(|e| format!("`{pointer}`: {e}"))
    }

    /// A count of the configuration.
    pub(crate) fn integer(&self, key: &str) -> Result<usize, String> {
        self.parsed(&format!("/config/{key}"))
    }

    /// A number of the configuration.
    pub(crate) fn float(&self, key: &str) -> Result<f64, String> {
        let value = self.value(&format!("/config/{key}"))?;
        value.as_f64().ok_or_else(|| format!("`{key}` is {value}, not a number"))
    }

    /// A value of the JSON by its path from the root; nothing where it is absent or `null`.
    pub(crate) fn optional<T: DeserializeOwned>(&self, pointer: &str) -> Result<Option<T>, String> {
        let value = self.json.pointer(pointer).filter(|value| !value.is_null());
        value.map_or(Ok(None), |_| self.parsed(pointer).map(Some))
    }

    /// A switch of the configuration, `default` where the case does not name it.
    pub(crate) fn switch(&self, key: &str, default: bool) -> Result<bool, String> {
        Ok(self.optional(&format!("/config/{key}"))?.unwrap_or(default))
    }

    /// A list of counts of the configuration.
    pub(crate) fn integer_list(&self, key: &str) -> Result<Vec<usize>, String> {
        self.parsed(&format!("/config/{key}"))
    }

    /// A tolerance of the case by its name.
    pub(crate) fn tolerance(&self, key: &str) -> Option<f64> {
        self.json.pointer(&format!("/tolerance/{key}")).and_then(Value::as_f64)
    }

    /// `module` with the case's weights in place of its own; `prefix` is what the published keys have in front of the
    /// module's paths. Each weight of the case must be taken, and each parameter must be given.
    pub(crate) fn load_weights<M: Module>(&self, module: M, prefix: &str) -> Result<M, String> {
        let mut loader = Loader {
            case: self,
            prefix,
            path: ModulePath::default(),
            taken: BTreeSet::new(),
            missing: Vec::new(),
        };
        let module = module.map(&mut loader);
        if !loader.missing.is_empty() {
            return Err(format!("parameters that the case does not have: {}", loader.missing.join(", ")));
        }
        let unused: Vec<_> =
            self.names(prefix).into_iter().filter(|name| !loader.taken.contains(*name)).collect();
        if let Some(name) = unused.iter().find(|name| !computed(name)) {
            return Err(format!("`{name}` is no parameter of the module"));
        }
        Ok(module)
    }
}

fn read(dtype: Dtype, bytes: &[u8]) -> Option<Values> {
    Some(match dtype {
        Dtype::F32 => Values::Floats(
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        ),
        Dtype::I64 => Values::Integers(
            bytes
                .chunks_exact(8)
                .map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
                .collect(),
        ),
        Dtype::U8 | Dtype::BOOL => Values::Integers(bytes.iter().map(|b| i64::from(*b)).collect()),
        _ => return None,
    })
}

/// Where the suite computes: the CPU, with gradients.
pub(crate) fn device() -> Device {
    Device::flex().autodiff()
}

/// A tensor's values, flat.
pub(crate) fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor.to_data().iter::<f32>().collect()
}

/// Collects what differs in one case.
pub(crate) struct Check<'a> {
    case: &'a Case,
    failures: Vec<String>,
}

impl<'a> Check<'a> {
    pub(crate) fn new(case: &'a Case) -> Self {
        Self { case, failures: Vec::new() }
    }

    /// All that was compared agrees; or what does not, as lines.
    pub(crate) fn finish(self) -> Result<(), String> {
        if self.failures.is_empty() { Ok(()) } else { Err(self.failures.join("\n")) }
    }

    /// Notes something else that is wrong.
    pub(crate) fn fail(&mut self, line: impl Into<String>) {
        self.failures.push(line.into());
    }

    /// Two lists of numbers agree within `allowed(expected)`.
    fn within(&mut self, name: &str, actual: &[f32], expected: &[f32], allowed: impl Fn(f32) -> f64) {
        if actual.len() != expected.len() {
            return self.fail(format!("{name}: {} values instead of {}", actual.len(), expected.len()));
        }
        let worst = actual
            .iter()
            .zip(expected)
            .enumerate()
            .map(|(index, (a, b))| {
                let distance = if a.to_bits() == b.to_bits() { 0.0 } else { f64::from((a - b).abs()) };
                let ratio = if distance == 0.0 { 0.0 } else { distance / allowed(*b) };
                (if ratio.is_nan() { f64::INFINITY } else { ratio }, index)
            })
            .max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((ratio, index)) = worst
            && ratio > 1.0
        {
            self.fail(format!(
                "{name}: {} at {index} instead of {}, {ratio:.3} times what is allowed",
                actual[index], expected[index]
            ));
        }
    }

    /// A tensor of the case by its full name, compared as an output: within the tolerance times the largest magnitude
    /// of the tensor, or within `abs + rel * |expected|`, whichever the case states.
    pub(crate) fn output(&mut self, name: &str, actual: &[f32]) {
        let case = self.case;
        match case.floats(name) {
            Err(reason) => self.fail(reason),
            Ok(expected) => {
                let allowed: Box<dyn Fn(f32) -> f64> =
                    if let Some(tolerance) = case.tolerance("output_abs_over_tensor_max") {
                        let bound = tolerance * largest(expected);
                        Box::new(move |_| bound)
                    } else {
                        let absolute = case.tolerance("abs").unwrap_or(0.0);
                        let relative = case.tolerance("rel").unwrap_or(0.0);
                        Box::new(move |b| absolute + relative * f64::from(b.abs()))
                    };
                self.within(name, actual, expected, allowed);
            }
        }
    }

    /// A tensor of the case by its full name, each value within the tolerance of that name.
    pub(crate) fn absolute(&mut self, name: &str, actual: &[f32], tolerance: &str) {
        self.at_least(name, actual, tolerance, 0.0);
    }

    /// As [`Self::absolute`], with a tolerance of at least `least`.
    pub(crate) fn at_least(&mut self, name: &str, actual: &[f32], tolerance: &str, least: f64) {
        let case = self.case;
        match (case.floats(name), case.tolerance(tolerance)) {
            (Ok(expected), Some(bound)) => self.within(name, actual, expected, |_| bound.max(least)),
            (Err(reason), _) => self.fail(reason),
            (_, None) => self.fail(format!("{name}: the case has no tolerance `{tolerance}`")),
        }
    }

    /// A tensor of the case by its full name, each value within `tolerance` times the expected one.
    pub(crate) fn relative(&mut self, name: &str, actual: &[f32], tolerance: &str) {
        let case = self.case;
        match (case.floats(name), case.tolerance(tolerance)) {
            (Ok(expected), Some(bound)) => {
                self.within(name, actual, expected, |b| bound * f64::from(b.abs()));
            }
            (Err(reason), _) => self.fail(reason),
            (_, None) => self.fail(format!("{name}: the case has no tolerance `{tolerance}`")),
        }
    }

    /// A gradient by its full name: within the tolerance times max(largest magnitude, `grad_scale_floor`); within
    /// 0.01 of the floor where the gradient is zero analytically.
    pub(crate) fn gradient(&mut self, name: &str, actual: &[f32]) {
        let case = self.case;
        let floor = case.json.pointer("/grad_scale_floor").and_then(Value::as_f64).unwrap_or(0.0);
        let near_zero = case
            .json
            .pointer("/near_zero_grads")
            .and_then(Value::as_array)
            .is_some_and(|list| list.iter().any(|entry| entry.as_str() == Some(name)));
        match case.floats(name) {
            Err(reason) => self.fail(reason),
            Ok(expected) => {
                let tolerance =
                    case.tolerance("grad_abs_over_tensor_max").or(case.tolerance("rel")).unwrap_or(1e-4);
                let bound = if near_zero { 0.01 * floor } else { tolerance * largest(expected).max(floor) };
                self.within(name, actual, expected, |_| bound);
            }
        }
    }

    /// The gradient of a leaf.
    pub(crate) fn leaf_gradient<const D: usize>(
        &mut self,
        name: &str,
        leaf: &Tensor<D>,
        gradients: &Gradients,
    ) {
        match leaf.grad(gradients) {
            Some(gradient) => self.gradient(name, &values(&gradient)),
            None => self.fail(format!("{name}: no gradient")),
        }
    }

    /// Integers by their full name, which must be equal.
    pub(crate) fn exact(&mut self, name: &str, actual: &[i64]) {
        match self.case.integers(name) {
            Err(reason) => self.fail(reason),
            Ok(expected) => {
                let expected = expected.to_vec();
                if expected != actual {
                    let at = expected.iter().zip(actual).position(|(b, a)| a != b);
                    self.fail(format!(
                        "{name}: {} integers (expected {}), the first difference at {at:?}",
                        actual.len(),
                        expected.len()
                    ));
                }
            }
        }
    }

    /// The gradients of all parameters of `module` against `grad.<prefix>...`; each gradient of the case is asked for.
    pub(crate) fn weight_gradients<M: Module>(&mut self, module: &M, gradients: &Gradients, prefix: &str) {
        let prefix = format!("grad.{prefix}");
        let mut visitor =
            GradientVisitor { gradients, prefix: &prefix, path: ModulePath::default(), found: Vec::new() };
        module.visit(&mut visitor);
        let found = visitor.found;
        let case = self.case;
        for name in case.names(&prefix) {
            match found.iter().find(|(path, _)| path == name) {
                Some((_, Some(gradient))) => self.gradient(name, gradient),
                Some((_, None)) => {
                    let zeros = vec![0.0; case.floats(name).map_or(0, <[f32]>::len)];
                    self.gradient(name, &zeros);
                }
                None => self.fail(format!("{name}: no such parameter")),
            }
        }
    }

    /// `sum(output * cotangent)` over pairs of an output and the name of its cotangent.
    pub(crate) fn loss<const D: usize>(
        &mut self,
        outputs: &[(&Tensor<D>, String)],
    ) -> Result<Tensor<1>, String> {
        let mut total: Option<Tensor<1>> = None;
        for (output, cotangent) in outputs {
            let part = ((*output).clone() * self.case.tensor::<D>(cotangent)?).sum();
            total = Some(match total {
                Some(sum) => sum + part,
                None => part,
            });
        }
        total.ok_or_else(|| "no output has a cotangent".to_owned())
    }
}

/// The values of a parameter or buffer.
pub(crate) fn f32_values(tensor: &NamedTensor) -> &[f32] {
    match &tensor.data {
        longtake_worker::tensors::TensorData::F32(values) => values,
        _ => &[],
    }
}

fn largest(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(value.abs())).fold(0.0, f64::max)
}

struct Loader<'a> {
    case: &'a Case,
    prefix: &'a str,
    path: ModulePath,
    taken: BTreeSet<String>,
    missing: Vec<String>,
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = format!("{}{}", self.prefix, self.path.name());
        match self.case.tensor::<D>(&name) {
            Ok(tensor) if tensor.dims() == param.val().dims() => {
                self.taken.insert(name);
                param.map(|old| tensor.set_require_grad(old.is_require_grad()))
            }
            Ok(tensor) => {
                self.missing.push(format!(
                    "{name} {:?} (the case has {:?})",
                    param.val().dims(),
                    tensor.dims()
                ));
                param
            }
            Err(_) => {
                self.missing.push(name);
                param
            }
        }
    }
}

struct GradientVisitor<'a> {
    gradients: &'a Gradients,
    prefix: &'a str,
    path: ModulePath,
    found: Vec<(String, Option<Vec<f32>>)>,
}

impl ModuleVisitor for GradientVisitor<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param.val().grad(self.gradients).map(|gradient| values(&gradient));
        self.found.push((format!("{}{}", self.prefix, self.path.name()), gradient));
    }
}
