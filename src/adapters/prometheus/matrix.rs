//! Decodes the answer to a range query while it arrives: a week of a fleet has millions of samples, and only their
//! numbers are kept.

use std::{collections::HashMap, fmt, io::Read};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::decide::{
    replay::answers::{ABSENT, HISTOGRAM},
    time::Timestamp,
};

/// Values of one answer, at most: 128 MiB.
pub(super) const MAX_VALUES: usize = 16 << 20;

/// The steps whose values are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub(super) start: Timestamp,
    /// Milliseconds.
    pub(super) step: i64,
    pub(super) steps: usize,
}

/// One series as the server sends it.
#[derive(Debug, Default)]
pub(super) struct MatrixSeries {
    pub(super) labels: HashMap<String, String>,
    /// One for each step.
    pub(super) values: Vec<f64>,
}

/// The whole answer; members that it lacks are empty.
#[derive(Debug, Default)]
pub(super) struct Matrix {
    pub(super) status: String,
    pub(super) error: String,
    pub(super) result_type: Option<String>,
    pub(super) series: Vec<MatrixSeries>,
    pub(super) warnings: Vec<String>,
    pub(super) is_partial: bool,
    /// More than [`MAX_VALUES`]: the rest was not read.
    pub(super) too_large: bool,
}

/// Reads an answer.
///
/// # Errors
/// Anything but the API's JSON.
pub(super) fn read(body: impl Read, grid: Grid) -> Result<Matrix, serde_json::Error> {
    let mut matrix = Matrix::default();
    let mut reader = serde_json::Deserializer::from_reader(body);
    let read =
        EnvelopeSeed { grid, matrix: &mut matrix }.deserialize(&mut reader).and_then(|()| reader.end());
    match read {
        Err(_) if matrix.too_large => Ok(matrix),
        read => read.map(|()| matrix),
    }
}

impl Grid {
    /// The step nearest to a time in seconds; some servers move the steps to multiples of their length.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a cast saturates, and such a time is outside of the grid"
    )]
    fn index(self, seconds: f64) -> Option<usize> {
        let since = (seconds * 1000.0).round() as i64 - self.start.unix_millis();
        let index = since.checked_add(self.step / 2)?.div_euclid(self.step.max(1));
        usize::try_from(index).ok().filter(|index| *index < self.steps)
    }
}

struct EnvelopeSeed<'m> {
    grid: Grid,
    matrix: &'m mut Matrix,
}

impl<'de> DeserializeSeed<'de> for EnvelopeSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer of Prometheus's API")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { grid, matrix } = self;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "status" => matrix.status = map.next_value()?,
                "error" => matrix.error = map.next_value()?,
                "warnings" => matrix.warnings = map.next_value::<Option<Vec<String>>>()?.unwrap_or_default(),
                "isPartial" => matrix.is_partial = map.next_value()?,
                "data" => map.next_value_seed(DataSeed { grid, matrix })?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct DataSeed<'m> {
    grid: Grid,
    matrix: &'m mut Matrix,
}

impl<'de> DeserializeSeed<'de> for DataSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DataSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("data with resultType and result")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { grid, matrix } = self;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "resultType" => matrix.result_type = Some(map.next_value()?),
                // Another type's result has another form.
                "result" if matrix.result_type.as_deref().is_none_or(|kind| kind == "matrix") => {
                    map.next_value_seed(ResultSeed { grid, matrix: &mut *matrix })?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct ResultSeed<'m> {
    grid: Grid,
    matrix: &'m mut Matrix,
}

impl<'de> DeserializeSeed<'de> for ResultSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ResultSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of series")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { grid, matrix } = self;
        while let Some(series) = list.next_element_seed(SeriesSeed { grid })? {
            matrix.series.push(series);
            if matrix.series.len().saturating_mul(grid.steps) > MAX_VALUES {
                matrix.too_large = true;
                return Err(A::Error::custom("too many values"));
            }
        }
        Ok(())
    }
}

struct SeriesSeed {
    grid: Grid,
}

impl<'de> DeserializeSeed<'de> for SeriesSeed {
    type Value = MatrixSeries;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<MatrixSeries, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for SeriesSeed {
    type Value = MatrixSeries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a series with metric and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MatrixSeries, A::Error> {
        let grid = self.grid;
        let mut series = MatrixSeries { labels: HashMap::new(), values: vec![ABSENT; grid.steps] };
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metric" => series.labels = map.next_value()?,
                "values" => map.next_value_seed(SamplesSeed { grid, values: &mut series.values })?,
                "histograms" => {
                    for (seconds, _) in map.next_value::<Vec<(f64, IgnoredAny)>>()? {
                        put(grid, &mut series.values, seconds, HISTOGRAM);
                    }
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(series)
    }
}

fn put(grid: Grid, values: &mut [f64], seconds: f64, value: f64) {
    if let Some(place) = grid.index(seconds).and_then(|index| values.get_mut(index)) {
        *place = value;
    }
}

struct SamplesSeed<'v> {
    grid: Grid,
    values: &'v mut [f64],
}

impl<'de> DeserializeSeed<'de> for SamplesSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for SamplesSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of samples, each a time and a number as text")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some((seconds, Number(value))) = list.next_element::<(f64, Number)>()? {
            put(self.grid, self.values, seconds, value);
        }
        Ok(())
    }
}

/// A number as text; NaN for what is none.
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberVisitor;

        impl Visitor<'_> for NumberVisitor {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number as text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
                Ok(Number(text.parse().unwrap_or(f64::NAN)))
            }
        }

        deserializer.deserialize_str(NumberVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: Grid = Grid { start: Timestamp::from_unix_millis(100_000), step: 5000, steps: 3 };

    fn read(body: &str) -> Result<Matrix, serde_json::Error> {
        super::read(body.as_bytes(), GRID)
    }

    #[test]
    fn samples_stand_at_their_steps_and_what_is_missing_is_absent() {
        let body = r#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{"pod":"a"},"values":[[100,"1.5"],[110,"NaN"]]},
            {"values":[[104.9,"+Inf"],[95,"7"],[115,"7"]],"metric":{"pod":"b"},"more":[1]},
            {"metric":{"pod":"h"},"histograms":[[105,{"count":"3","buckets":[[0,"1","2","3"]]}]]}
        ],"stats":{}},"warnings":null,"infos":["x"]}"#;
        let matrix = read(body).unwrap();
        assert_eq!((matrix.status.as_str(), matrix.result_type.as_deref()), ("success", Some("matrix")));
        let bits: Vec<Vec<u64>> = matrix
            .series
            .iter()
            .map(|series| series.values.iter().map(|value| value.to_bits()).collect())
            .collect();
        let (absent, histogram) = (ABSENT.to_bits(), HISTOGRAM.to_bits());
        assert_eq!(bits[0], [1.5_f64.to_bits(), absent, f64::NAN.to_bits()]);
        assert_eq!(bits[1], [absent, f64::INFINITY.to_bits(), absent], "outside of the steps");
        assert_eq!(bits[2], [absent, histogram, absent]);
        assert_eq!(matrix.series[1].labels["pod"], "b", "members in any order");
    }

    #[test]
    fn errors_warnings_and_other_types_are_read_too() {
        let failed = read(r#"{"status":"error","errorType":"execution","error":"no"}"#).unwrap();
        assert_eq!((failed.status.as_str(), failed.error.as_str()), ("error", "no"));
        let scalar = read(r#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#).unwrap();
        assert_eq!(scalar.result_type.as_deref(), Some("scalar"));
        let partial = read(r#"{"status":"success","data":null,"warnings":["w"],"isPartial":true}"#).unwrap();
        assert!(partial.is_partial && partial.warnings == ["w"] && partial.result_type.is_none());
    }

    #[test]
    fn html_half_a_body_and_nonsense_are_errors() {
        for body in [
            "<html>",
            "",
            "7",
            "[]",
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric""#,
        ] {
            assert!(read(body).is_err(), "{body}");
        }
        let text = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,2]]}]}}"#;
        assert!(read(text).is_err(), "a value that is no text");
    }

    #[test]
    fn reading_ends_where_the_bound_of_values_is_passed() {
        let grid = Grid { steps: MAX_VALUES, ..GRID };
        let body = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{}},{"metric":{}},{"metric":{}}]}}"#;
        let matrix = super::read(body.as_bytes(), grid).unwrap();
        assert!(matrix.too_large && matrix.series.len() == 2);
    }
}
