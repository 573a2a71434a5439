{#- Days whose counts differ from the sum of the counts of their hours. -#}
{% test equals_sum_of_parts(model, parts) %}
with whole as (
    select * from {{ tested_rows(model) }}
)

select
    whole.symbol,
    whole.open_time,
    parts.*
from whole
cross join lateral (
    select {{ sum_minute_counts('finer') }}
    from {{ parts }} as finer
    where
        finer.symbol = whole.symbol
        and finer.open_time >= whole.open_time
        and finer.open_time < whole.open_time + interval '1440 minutes'
) as parts
where
    {% for count in minute_counts() -%}
    whole.{{ count }} is distinct from parts.{{ count }}{{ ' or' if not loop.last }}
    {% endfor %}
{% endtest %}
