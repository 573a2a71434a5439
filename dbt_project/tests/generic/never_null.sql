{#- Rows with a null in any of the given columns, and in which. -#}
{% test never_null(model, columns) %}
with bars as (
    select * from {{ tested_bars(model) }}
)
{% for column in columns %}
select
    '{{ column }}' as null_column,
    symbol,
    open_time
from bars
where {{ column }} is null
{% if not loop.last %}union all{% endif %}
{%- endfor %}
{% endtest %}
