//! How far a PromQL query looks back.

use std::time::Duration;

use promql_parser::parser::{self, Expr, Offset};

/// The longest way back of any selector: its range, the subqueries around it, and every offset. `None` where the text
/// is not the PromQL that the parser knows, such as an extension of another server.
pub(super) fn longest(promql: &str) -> Option<Duration> {
    parser::parse(promql).ok().map(|query| back(&query))
}

fn back(query: &Expr) -> Duration {
    let most = |all: &mut dyn Iterator<Item = &Expr>| all.map(back).max().unwrap_or_default();
    match query {
        Expr::Aggregate(aggregate) => back(&aggregate.expr),
        Expr::Unary(unary) => back(&unary.expr),
        Expr::Paren(paren) => back(&paren.expr),
        Expr::Binary(binary) => back(&binary.lhs).max(back(&binary.rhs)),
        Expr::Call(call) => most(&mut call.args.args.iter().map(AsRef::as_ref)),
        Expr::Subquery(subquery) => back(&subquery.expr) + subquery.range + earlier(subquery.offset.as_ref()),
        Expr::MatrixSelector(selector) => selector.range + earlier(selector.vs.offset.as_ref()),
        Expr::VectorSelector(selector) => earlier(selector.offset.as_ref()),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => Duration::ZERO,
    }
}

fn earlier(offset: Option<&Offset>) -> Duration {
    match offset {
        Some(Offset::Pos(offset)) => *offset,
        Some(Offset::Neg(_)) | None => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_subqueries_and_offsets_add_up_and_the_longest_branch_counts() {
        let cases = [
            ("up", 0),
            ("rate(x[5m])", 300),
            ("sum by (pod) (rate(x[30s])) / sum by (pod) (rate(y[2m]))", 120),
            ("max_over_time(rate(x[5m])[30m:1m])", 2100),
            ("rate(x[5m] offset 1h)", 3900),
            ("x offset -5m", 0),
            ("histogram_quantile(0.9, sum by (pod, le) (rate(x_bucket[10m])))", 600),
            ("label_replace(rate(x[1m]), \"pod\", \"$1\", \"instance\", \"(.*):.*\")", 60),
        ];
        for (query, seconds) in cases {
            assert_eq!(longest(query), Some(Duration::from_secs(seconds)), "{query}");
        }
        assert_eq!(longest("sum(rate(x[5m])"), None);
    }
}
