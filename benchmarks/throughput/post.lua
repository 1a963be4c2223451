function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.path = "/v1/predict"
  wrk.body = file:read("*a")
  wrk.headers["Content-Type"] = args[2]
  file:close()

  local pause = tonumber(args[3])
  if pause > 0 then
    -- wrk looks for a function of this name.
    function delay()
      return math.random(0, 2 * pause)
    end
  end
end
